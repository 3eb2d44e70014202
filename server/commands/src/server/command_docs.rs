//! COMMAND DOCS: what redis-cli shows while one types.

use ferrite_resp::Reply;

use crate::spec::{Arg, ArgKind, CommandSpec};

/// A map of names to documentation.
pub(super) fn write(reply: &mut Reply<'_>, specs: impl Iterator<Item = &'static CommandSpec>) {
    let specs: Vec<_> = specs.collect();
    reply.map(specs.len());
    for spec in specs {
        reply.bulk(spec.name.as_bytes());
        document(spec, reply);
    }
}

fn document(spec: &'static CommandSpec, reply: &mut Reply<'_>) {
    let flags = [(spec.deprecated_since.is_some(), "deprecated"), (spec.system, "syscmd")];
    let flag_count = flags.iter().filter(|(on, _)| *on).count();
    reply.map(
        3 + usize::from(spec.complexity.is_some())
            + usize::from(flag_count > 0)
            + usize::from(spec.deprecated_since.is_some())
            + usize::from(spec.replaced_by.is_some())
            + usize::from(!spec.arguments.is_empty())
            + usize::from(!spec.subcommands.is_empty()),
    );
    text(reply, "summary", Some(spec.summary));
    text(reply, "since", Some(spec.since));
    text(reply, "group", Some(spec.group.as_str()));
    text(reply, "complexity", spec.complexity);
    if flag_count > 0 {
        reply.bulk(b"doc_flags");
        reply.set(flag_count);
        for (_, name) in flags.iter().filter(|(on, _)| *on) {
            reply.simple(name);
        }
    }
    text(reply, "deprecated_since", spec.deprecated_since);
    text(reply, "replaced_by", spec.replaced_by);
    if !spec.arguments.is_empty() {
        reply.bulk(b"arguments");
        arguments(spec.arguments, reply);
    }
    if !spec.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        write(reply, spec.subcommands.iter());
    }
}

fn text(reply: &mut Reply<'_>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

fn arguments(args: &[Arg], reply: &mut Reply<'_>) {
    reply.array(args.len());
    for arg in args {
        argument(arg, reply);
    }
}

fn argument(arg: &Arg, reply: &mut Reply<'_>) {
    let flags = [(arg.optional, "optional"), (arg.multiple, "multiple"), (arg.multiple_token, "multiple_token")];
    let flag_count = flags.iter().filter(|(on, _)| *on).count();
    let nested = !arg.args.is_empty();
    let key_spec = match arg.kind {
        ArgKind::Key(index) => Some(index),
        _ => None,
    };
    reply.map(
        2 + usize::from(!nested)
            + usize::from(key_spec.is_some())
            + usize::from(arg.token.is_some())
            + usize::from(arg.since.is_some())
            + usize::from(arg.deprecated_since.is_some())
            + usize::from(flag_count > 0)
            + usize::from(nested),
    );
    text(reply, "name", Some(arg.name));
    text(reply, "type", Some(kind(arg.kind)));
    text(reply, "display_text", (!nested).then_some(arg.name));
    if let Some(index) = key_spec {
        reply.bulk(b"key_spec_index");
        reply.integer(index as i64);
    }
    text(reply, "token", arg.token);
    text(reply, "since", arg.since);
    text(reply, "deprecated_since", arg.deprecated_since);
    if flag_count > 0 {
        reply.bulk(b"flags");
        reply.set(flag_count);
        for (_, name) in flags.iter().filter(|(on, _)| *on) {
            reply.simple(name);
        }
    }
    if nested {
        reply.bulk(b"arguments");
        arguments(arg.args, reply);
    }
}

fn kind(kind: ArgKind) -> &'static str {
    match kind {
        ArgKind::String => "string",
        ArgKind::Integer => "integer",
        ArgKind::Double => "double",
        ArgKind::Key(_) => "key",
        ArgKind::Pattern => "pattern",
        ArgKind::UnixTime => "unix-time",
        ArgKind::PureToken => "pure-token",
        ArgKind::OneOf => "oneof",
        ArgKind::Block => "block",
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    #[test]
    fn docs_of_a_plain_command() {
        let mut client = Client::new();
        assert_eq!(
            client.run("COMMAND DOCS TIME nope"),
            "*2\r\n$4\r\ntime\r\n*8\r\n$7\r\nsummary\r\n$24\r\nGives the server's time.\r\n$5\r\nsince\r\n$5\r\n2.6.0\r\n\
             $5\r\ngroup\r\n$6\r\nserver\r\n$10\r\ncomplexity\r\n$4\r\nO(1)\r\n"
        );
        client.run("HELLO 3");
        assert_eq!(
            client.run("COMMAND DOCS ECHO"),
            "%1\r\n$4\r\necho\r\n%5\r\n$7\r\nsummary\r\n$21\r\nAnswers its argument.\r\n$5\r\nsince\r\n$5\r\n1.0.0\r\n\
             $5\r\ngroup\r\n$10\r\nconnection\r\n$10\r\ncomplexity\r\n$4\r\nO(1)\r\n$9\r\narguments\r\n*1\r\n%3\r\n$4\r\nname\r\n\
             $7\r\nmessage\r\n$4\r\ntype\r\n$6\r\nstring\r\n$12\r\ndisplay_text\r\n$7\r\nmessage\r\n"
        );
    }

    #[test]
    fn docs_of_deprecated_and_nested_ones() {
        let mut client = Client::new();
        assert!(client.run("COMMAND DOCS quit").contains(
            "$9\r\ndoc_flags\r\n*1\r\n+deprecated\r\n$16\r\ndeprecated_since\r\n$5\r\n7.2.0\r\n$11\r\nreplaced_by\r\n"
        ));
        let memory = client.run("COMMAND DOCS memory");
        assert!(memory.contains("$11\r\nsubcommands\r\n"), "{memory}");
        assert!(memory.contains("$14\r\nkey_spec_index\r\n:0\r\n"), "{memory}");
    }
}
