//! COMMAND: the table as clients read it.

use ferrite_keyspace::Pause;
use ferrite_resp::Reply;

use super::{command_docs, getkeys};
use crate::call::Call;
use crate::spec::{Arg, BeginSearch, CommandSpec, FindKeys, Group, Handler, KeySpec, acl, flag, keyflag};
use crate::{glob, help, table};

const fn sub(name: &'static str, arity: i32, handler: Handler, since: &'static str) -> CommandSpec {
    CommandSpec::new(name, arity, handler)
        .group(Group::Server)
        .since(since)
        .complexity("O(N)")
        .flags(flag::LOADING | flag::STALE)
        .acl(acl::CONNECTION)
}

pub static SPECS: &[CommandSpec] = &[CommandSpec::new("command", -1, command)
    .group(Group::Server)
    .since("2.8.13")
    .complexity("O(N)")
    .summary("Describes all commands.")
    .flags(flag::LOADING | flag::STALE)
    .acl(acl::CONNECTION)
    .tips(&["nondeterministic_output_order"])
    .subcommands(SUBCOMMANDS)];

static SUBCOMMANDS: &[CommandSpec] = &[
    sub("command|count", 2, count, "2.8.13").complexity("O(1)").summary("Gives the number of commands."),
    sub("command|docs", -2, docs, "7.0.0")
        .summary("Documents commands, all or the named ones.")
        .tips(&["nondeterministic_output_order"])
        .args(&[Arg::string("command-name").optional().multiple()]),
    sub("command|getkeys", -3, getkeys, "2.8.13")
        .summary("Tells which arguments of a command are keys.")
        .args(&[Arg::string("command"), Arg::string("arg").optional().multiple()]),
    sub("command|getkeysandflags", -3, getkeys, "7.0.0")
        .summary("Tells which arguments of a command are keys, and what it does with each.")
        .args(&[Arg::string("command"), Arg::string("arg").optional().multiple()]),
    sub("command|info", -2, info, "2.8.13")
        .summary("Describes the named commands.")
        .tips(&["nondeterministic_output_order"])
        .args(&[Arg::string("command-name").optional().multiple()]),
    sub("command|list", -2, list, "7.0.0")
        .summary("Gives the names of the commands, all or those that pass a filter.")
        .tips(&["nondeterministic_output_order"])
        .args(&[Arg::one_of(
            "filterby",
            &[
                Arg::string("module-name").token("MODULE"),
                Arg::string("category").token("ACLCAT"),
                Arg::pattern("pattern").token("PATTERN"),
            ],
        )
        .token("FILTERBY")
        .optional()]),
    sub("command|help", 2, show_help, "5.0.0").complexity("O(1)").summary("Explains the subcommands."),
];

fn command(call: &mut Call<'_>) -> Result<(), Pause> {
    describe_all(&mut call.reply);
    Ok(())
}

fn count(call: &mut Call<'_>) -> Result<(), Pause> {
    call.reply.integer(table::count() as i64);
    Ok(())
}

fn info(call: &mut Call<'_>) -> Result<(), Pause> {
    if call.args.len() == 2 {
        describe_all(&mut call.reply);
        return Ok(());
    }
    call.reply.array(call.args.len() - 2);
    for name in call.args.iter().skip(2) {
        match table::lookup_full(name) {
            Some(spec) => describe(spec, &mut call.reply),
            None => call.reply.null(),
        }
    }
    Ok(())
}

fn docs(call: &mut Call<'_>) -> Result<(), Pause> {
    if call.args.len() == 2 {
        command_docs::write(&mut call.reply, table::all());
    } else {
        // Unknown names are left out.
        command_docs::write(&mut call.reply, call.args.iter().skip(2).filter_map(table::lookup_full));
    }
    Ok(())
}

enum Filter<'a> {
    Module,
    Category(&'a [u8]),
    Pattern(&'a [u8]),
}

impl Filter<'_> {
    fn passes(&self, spec: &CommandSpec) -> bool {
        match self {
            // There are no modules, so no command comes from one.
            Filter::Module => false,
            Filter::Category(name) => acl::NAMES
                .iter()
                .any(|(bit, category)| spec.categories & bit != 0 && name.eq_ignore_ascii_case(category.as_bytes())),
            Filter::Pattern(pattern) => glob::matches(pattern, spec.name.as_bytes(), true),
        }
    }
}

fn list(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    if args.len() == 2 {
        call.reply.array(table::count());
        for spec in table::all() {
            call.reply.bulk(spec.name.as_bytes());
        }
        return Ok(());
    }
    let filtered = args.len() == 5 && args.get(2).eq_ignore_ascii_case(b"FILTERBY");
    let kind = if filtered { args.get(3).to_ascii_lowercase() } else { Vec::new() };
    let filter = match &kind[..] {
        b"module" => Filter::Module,
        b"aclcat" => Filter::Category(args.get(4)),
        b"pattern" => Filter::Pattern(args.get(4)),
        _ => {
            call.reply.error("ERR syntax error");
            return Ok(());
        }
    };
    // A filter also looks at subcommands, the whole list does not.
    let names: Vec<&str> = table::all()
        .flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
        .filter(|spec| filter.passes(spec))
        .map(|spec| spec.name)
        .collect();
    call.reply.array(names.len());
    for name in names {
        call.reply.bulk(name.as_bytes());
    }
    Ok(())
}

fn getkeys(call: &mut Call<'_>) -> Result<(), Pause> {
    let with_flags = call.spec.name == "command|getkeysandflags";
    let args = call.args.from(2);
    let Some(spec) = table::resolve(args) else {
        call.reply.error("ERR Invalid command specified");
        return Ok(());
    };
    if spec.key_specs.is_empty() {
        call.reply.error("ERR The command has no key arguments");
        return Ok(());
    }
    if !spec.arity_allows(args.len()) {
        call.reply.error("ERR Invalid number of arguments specified for command");
        return Ok(());
    }
    let reply = &mut call.reply;
    match getkeys::keys_with_flags(spec, args).filter(|keys| !keys.is_empty()) {
        Some(keys) => {
            reply.array(keys.len());
            for (at, flags) in keys {
                if with_flags {
                    reply.array(2);
                }
                reply.bulk(args.get(at));
                if with_flags {
                    names(reply, flags, keyflag::NAMES, "");
                }
            }
        }
        None if spec.has(flag::NO_MANDATORY_KEYS) => reply.array(0),
        None => reply.error("ERR Invalid arguments specified for command"),
    }
    Ok(())
}

fn show_help(call: &mut Call<'_>) -> Result<(), Pause> {
    help::write(
        &mut call.reply,
        "command",
        &[
            "(no subcommand)",
            "    Describes all commands.",
            "COUNT",
            "    Gives the number of commands.",
            "DOCS [<command-name> [...]]",
            "    Documents commands, all by default.",
            "GETKEYS <full-command>",
            "    Gives the keys of a command.",
            "GETKEYSANDFLAGS <full-command>",
            "    Gives the keys of a command and what it does with them.",
            "INFO [<command-name> [...]]",
            "    Describes commands, all by default.",
            "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
            "    Gives names of commands.",
        ],
    );
    Ok(())
}

fn describe_all(reply: &mut Reply<'_>) {
    reply.array(table::count());
    for spec in table::all() {
        describe(spec, reply);
    }
}

/// One command's ten fields.
fn describe(spec: &CommandSpec, reply: &mut Reply<'_>) {
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.integer(spec.arity.into());
    names(reply, spec.flags, flag::NAMES, "");
    reply.integer(spec.keys.first.into());
    reply.integer(spec.keys.last.into());
    reply.integer(spec.keys.step.into());
    names(reply, spec.categories, acl::NAMES, "@");
    reply.set(spec.tips.len());
    for tip in spec.tips {
        reply.bulk(tip.as_bytes());
    }
    reply.set(spec.key_specs.len());
    for key_spec in spec.key_specs {
        describe_keys(key_spec, reply);
    }
    // Where there are none, Redis writes an empty set.
    match spec.subcommands.len() {
        0 => reply.set(0),
        count => reply.array(count),
    }
    for sub in spec.subcommands {
        describe(sub, reply);
    }
}

fn names(reply: &mut Reply<'_>, bits: u32, names: &[(u32, &str)], prefix: &str) {
    let present = || names.iter().filter(|(bit, _)| bits & bit != 0);
    reply.set(present().count());
    for (_, name) in present() {
        reply.simple(format!("{prefix}{name}"));
    }
}

fn describe_keys(key_spec: &KeySpec, reply: &mut Reply<'_>) {
    reply.map(3 + usize::from(key_spec.notes.is_some()));
    if let Some(notes) = key_spec.notes {
        reply.bulk(b"notes");
        reply.bulk(notes.as_bytes());
    }
    reply.bulk(b"flags");
    names(reply, key_spec.flags, keyflag::NAMES, "");
    reply.bulk(b"begin_search");
    match key_spec.begin {
        BeginSearch::Index(index) => part(reply, "index", &[("index", index as i64)]),
        BeginSearch::Keyword { keyword, start_from } => {
            part_head(reply, "keyword", 2);
            reply.bulk(b"keyword");
            reply.bulk(keyword.as_bytes());
            reply.bulk(b"startfrom");
            reply.integer(start_from.into());
        }
        BeginSearch::Unknown => part(reply, "unknown", &[]),
    }
    reply.bulk(b"find_keys");
    match key_spec.find {
        FindKeys::Range { last, step, limit } => {
            part(reply, "range", &[("lastkey", last.into()), ("keystep", step as i64), ("limit", limit as i64)]);
        }
        FindKeys::KeyNum { count_at, first, step } => part(
            reply,
            "keynum",
            &[("keynumidx", count_at as i64), ("firstkey", first as i64), ("keystep", step as i64)],
        ),
        FindKeys::Unknown => part(reply, "unknown", &[]),
    }
}

fn part(reply: &mut Reply<'_>, kind: &str, numbers: &[(&str, i64)]) {
    part_head(reply, kind, numbers.len());
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(*number);
    }
}

fn part_head(reply: &mut Reply<'_>, kind: &str, fields: usize) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(fields);
}

#[cfg(test)]
mod tests {
    use crate::table;
    use crate::testing::Client;

    const SELECT_2: &str = "*1\r\n*10\r\n$6\r\nselect\r\n:2\r\n*3\r\n+loading\r\n+stale\r\n+fast\r\n:0\r\n:0\r\n:0\r\n\
        *2\r\n+@fast\r\n+@connection\r\n*0\r\n*0\r\n*0\r\n";
    const USAGE_3: &str = "*1\r\n*10\r\n$12\r\nmemory|usage\r\n:-3\r\n~1\r\n+readonly\r\n:2\r\n:2\r\n:1\r\n\
        ~2\r\n+@read\r\n+@slow\r\n~0\r\n~1\r\n%3\r\n$5\r\nflags\r\n~1\r\n+RO\r\n$12\r\nbegin_search\r\n%2\r\n\
        $4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n%1\r\n$5\r\nindex\r\n:2\r\n$9\r\nfind_keys\r\n%2\r\n$4\r\ntype\r\n\
        $5\r\nrange\r\n$4\r\nspec\r\n%3\r\n$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n~0\r\n";

    #[test]
    fn info_in_both_protocols() {
        let mut client = Client::new();
        assert_eq!(client.run("COMMAND INFO SELECT"), SELECT_2);
        assert_eq!(client.run("COMMAND INFO nope"), "*1\r\n$-1\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("COMMAND INFO memory|usage"), USAGE_3);
        assert_eq!(client.run("COMMAND INFO nope"), "*1\r\n_\r\n");
    }

    #[test]
    fn count_list_and_the_whole_table_agree() {
        let mut client = Client::new();
        let count = table::count();
        assert_eq!(client.run("COMMAND COUNT"), format!(":{count}\r\n"));
        for command in ["COMMAND LIST", "COMMAND", "COMMAND INFO"] {
            assert!(client.run(command).starts_with(&format!("*{count}\r\n")), "{command}");
        }
        assert!(client.run("COMMAND DOCS").starts_with(&format!("*{}\r\n", 2 * count)));
    }

    #[test]
    fn list_filters() {
        let mut client = Client::new();
        assert_eq!(client.run("COMMAND LIST FILTERBY PATTERN PIN*"), "*1\r\n$4\r\nping\r\n");
        assert_eq!(
            client.run("COMMAND LIST FILTERBY pattern client|set*"),
            "*2\r\n$14\r\nclient|setname\r\n$14\r\nclient|setinfo\r\n"
        );
        assert!(client.run("COMMAND LIST FILTERBY ACLCAT connection").contains("\r\nclient|id\r\n"));
        assert_eq!(client.run("COMMAND LIST FILTERBY ACLCAT nope"), "*0\r\n");
        assert_eq!(client.run("COMMAND LIST FILTERBY MODULE x"), "*0\r\n");
        for command in ["COMMAND LIST x", "COMMAND LIST FILTERBY x y", "COMMAND LIST FILTERBY PATTERN a b"] {
            assert_eq!(client.run(command), "-ERR syntax error\r\n", "{command}");
        }
    }

    #[test]
    fn getkeys_and_its_errors() {
        let mut client = Client::new();
        assert_eq!(client.run("COMMAND GETKEYS MEMORY USAGE k"), "*1\r\n$1\r\nk\r\n");
        assert_eq!(client.run("COMMAND GETKEYSANDFLAGS memory usage k"), "*1\r\n*2\r\n$1\r\nk\r\n*1\r\n+RO\r\n");
        for (command, error) in [
            ("COMMAND GETKEYS nope a", "-ERR Invalid command specified\r\n"),
            ("COMMAND GETKEYS PING a", "-ERR The command has no key arguments\r\n"),
            ("COMMAND GETKEYS memory usage", "-ERR Invalid number of arguments specified for command\r\n"),
            ("COMMAND GETKEYS", "-ERR wrong number of arguments for 'command|getkeys' command\r\n"),
        ] {
            assert_eq!(client.run(command), error, "{command}");
        }
    }
}
