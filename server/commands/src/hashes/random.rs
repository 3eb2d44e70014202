//! HRANDFIELD: fields by chance.

use std::collections::BTreeSet;

use ferrite_keyspace::{Hash, Pair, Pause, Random};
use ferrite_resp::{Protocol, Reply};

use crate::call::Call;
use crate::parse::{SYNTAX_ERROR, integer, is};
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[CommandSpec::new("hrandfield", -2, hrandfield)
    .group(Group::Hash)
    .since("6.2.0")
    .complexity("O(N)")
    .summary("Gives one or several fields by chance.")
    .flags(flag::READONLY)
    .acl(acl::HASH)
    .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
    .tips(&["nondeterministic_output"])
    .args(&[
        Arg::key("key", 0),
        Arg::block("options", &[Arg::integer("count"), Arg::word("withvalues", "WITHVALUES").optional()]).optional(),
    ])];

fn hrandfield(call: &mut Call<'_>) -> Result<(), Pause> {
    let args = call.args;
    let (count, with_values) = match args.len() {
        2 => return one(call),
        len => {
            let count = integer(args.get(2))?;
            if count == i64::MIN {
                return Err(Pause::Refused(
                    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
                ));
            }
            if len > 4 || (len == 4 && !is(args.get(3), "WITHVALUES")) {
                return Err(SYNTAX_ERROR);
            }
            if len == 4 && count.unsigned_abs() > i64::MAX as u64 / 2 {
                return Err(Pause::Refused("ERR value is out of range"));
            }
            (count, len == 4)
        }
    };
    let mut random = Random::new(call.keys.random());
    let reply_max = call.proto_max_bulk_len;
    let Some(hash) = call.keys.read_hash(args.get(1))?.filter(|_| count != 0) else {
        call.reply.array(0);
        return Ok(());
    };
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count > 0 {
        distinct(&mut call.reply, hash, wanted.min(hash.len()), with_values, &mut random);
        return Ok(());
    }
    // Of a small one the pairs are searched for once.
    let pairs: Vec<Pair<'_>> = if hash.is_indexed() { Vec::new() } else { hash.iter().collect() };
    // The reply is gathered before it is sent: unlike any other one, it could be of any size.
    let mean = hash.bytes() / hash.len() + 1;
    if wanted.saturating_mul(mean) > reply_max {
        return Err(Pause::Refused("ERR value is out of range, the reply would exceed proto-max-bulk-len"));
    }
    begin(&mut call.reply, wanted, with_values);
    for _ in 0..wanted {
        let at = random.below(hash.len());
        write(&mut call.reply, if hash.is_indexed() { hash.at(at) } else { pairs[at] }, with_values);
    }
    Ok(())
}

fn one(call: &mut Call<'_>) -> Result<(), Pause> {
    let mut random = Random::new(call.keys.random());
    match call.keys.read_hash(call.args.get(1))? {
        Some(hash) => {
            let (field, _) = hash.at(random.below(hash.len()));
            call.reply.bulk(field);
        }
        None => call.reply.null(),
    }
    Ok(())
}

/// Of a large hash, if no more than this part of it is wanted, drawing until there are enough different fields takes fewer
/// draws than going through all.
const DRAWN_PART: usize = 4;

/// Replies `wanted` of the fields, each at most once: of every field in turn with the chance that makes all choices
/// equally likely (Knuth, algorithm S), or drawn.
fn distinct(reply: &mut Reply<'_>, hash: Hash<'_>, wanted: usize, with_values: bool, random: &mut Random) {
    begin(reply, wanted, with_values);
    if hash.is_indexed() && wanted <= hash.len() / DRAWN_PART {
        let mut drawn = BTreeSet::new();
        while drawn.len() < wanted {
            let at = random.below(hash.len());
            if drawn.insert(at) {
                write(reply, hash.at(at), with_values);
            }
        }
        return;
    }
    let (mut wanted, mut left) = (wanted, hash.len());
    for pair in hash.iter() {
        if random.below(left) < wanted {
            write(reply, pair, with_values);
            wanted -= 1;
        }
        left -= 1;
    }
}

/// With values RESP2 has a flat array, RESP3 one of pairs.
fn begin(reply: &mut Reply<'_>, count: usize, with_values: bool) {
    let flat = with_values && reply.protocol == Protocol::Resp2;
    reply.array(if flat { 2 * count } else { count });
}

fn write(reply: &mut Reply<'_>, (field, value): Pair<'_>, with_values: bool) {
    if with_values && reply.protocol == Protocol::Resp3 {
        reply.array(2);
    }
    reply.bulk(field);
    if with_values {
        reply.bulk(value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::testing::Client;

    fn fields(reply: &str) -> Vec<&str> {
        reply.split("\r\n").filter(|line| line.starts_with('f')).collect()
    }

    #[test]
    fn one_field_or_some_or_all() {
        let mut client = Client::new();
        assert_eq!((client.run("HRANDFIELD h"), client.run("HRANDFIELD h 2")), ("$-1\r\n".into(), "*0\r\n".into()));
        client.run("HSET h f0 a f1 b f2 c f3 d");
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            seen.insert(fields(&client.run("HRANDFIELD h"))[0].to_owned());
            let some = client.run("HRANDFIELD h 3");
            assert_eq!(fields(&some).iter().collect::<BTreeSet<_>>().len(), 3, "{some}");
            assert_eq!(fields(&client.run("HRANDFIELD h -9")).len(), 9);
        }
        assert_eq!(seen.len(), 4);
        assert_eq!(fields(&client.run("HRANDFIELD h 9")), ["f0", "f1", "f2", "f3"]);
        assert_eq!(client.run("HRANDFIELD h 0"), "*0\r\n");
    }

    #[test]
    fn every_choice_is_about_as_likely() {
        let mut client = Client::new();
        client.run("HSET h f0 a f1 b f2 c f3 d");
        let mut counts = [0; 4];
        for _ in 0..2000 {
            for field in fields(&client.run("HRANDFIELD h 2")) {
                counts[usize::from(field.as_bytes()[1] - b'0')] += 1;
            }
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn values_are_flat_or_nested() {
        let mut client = Client::new();
        client.run("HSET h f v");
        assert_eq!(client.run("HRANDFIELD h 5 WITHVALUES"), "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
        assert_eq!(client.run("HRANDFIELD h -2 withvalues"), "*4\r\n$1\r\nf\r\n$1\r\nv\r\n$1\r\nf\r\n$1\r\nv\r\n");
        client.run("HELLO 3");
        assert_eq!(client.run("HRANDFIELD h 5 WITHVALUES"), "*1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
        assert_eq!(client.run("HRANDFIELD h 5"), "*1\r\n$1\r\nf\r\n");
    }

    #[test]
    fn counts_out_of_range_are_refused() {
        let mut client = Client::new();
        client.run("HSET h f v");
        assert_eq!(client.run("HRANDFIELD h x"), "-ERR value is not an integer or out of range\r\n");
        assert_eq!(client.run("HRANDFIELD h 1 VALUES"), "-ERR syntax error\r\n");
        assert_eq!(client.run("HRANDFIELD h 1 WITHVALUES x"), "-ERR syntax error\r\n");
        assert_eq!(client.run("HRANDFIELD h 9223372036854775807 WITHVALUES"), "-ERR value is out of range\r\n");
        assert_eq!(
            client.run("HRANDFIELD h -9223372036854775808"),
            "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807\r\n"
        );
        assert_eq!(
            client.run("HRANDFIELD h -9223372036854775807"),
            "-ERR value is out of range, the reply would exceed proto-max-bulk-len\r\n"
        );
    }
}
