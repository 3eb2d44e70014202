//! LCS: the longest common subsequence of two strings.

use ferrite_keyspace::{Kind, Pause};

use crate::call::Call;
use crate::parse::{SYNTAX_ERROR, integer, is};
use crate::spec::{Arg, CommandSpec, Group, KeySpec, acl, flag, keyflag};

pub static SPECS: &[CommandSpec] = &[CommandSpec::new("lcs", -3, lcs)
    .group(Group::String)
    .since("7.0.0")
    .complexity("O(N*M)")
    .summary("Finds the longest common subsequence of two strings.")
    .flags(flag::READONLY)
    .acl(acl::STRING)
    .keys(&[KeySpec::range(1, 1, 1, keyflag::RO | keyflag::ACCESS)])
    .args(&[
        Arg::key("key1", 0),
        Arg::key("key2", 0),
        Arg::word("len", "LEN").optional(),
        Arg::word("idx", "IDX").optional(),
        Arg::integer("min-match-len").token("MINMATCHLEN").optional(),
        Arg::word("withmatchlen", "WITHMATCHLEN").optional(),
    ])];

#[derive(Default)]
struct Options {
    len: bool,
    indexes: bool,
    with_match_len: bool,
    min_match_len: usize,
}

fn options(call: &Call<'_>) -> Result<Options, Pause> {
    let args = call.args;
    let mut options = Options::default();
    let mut at = 3;
    while at < args.len() {
        let word = args.get(at);
        if is(word, "IDX") {
            options.indexes = true;
        } else if is(word, "LEN") {
            options.len = true;
        } else if is(word, "WITHMATCHLEN") {
            options.with_match_len = true;
        } else if is(word, "MINMATCHLEN") && at + 1 < args.len() {
            at += 1;
            options.min_match_len = integer(args.get(at))?.max(0) as usize;
        } else {
            return Err(SYNTAX_ERROR);
        }
        at += 1;
    }
    if options.indexes && options.len {
        return Err(Pause::Refused("ERR If you want both the length and indexes, please just use IDX."));
    }
    Ok(options)
}

fn lcs(call: &mut Call<'_>) -> Result<(), Pause> {
    let a = owned(call, 1)?;
    let b = owned(call, 2)?;
    let options = options(call)?;
    if a.len().max(b.len()) >= u32::MAX as usize - 1 {
        return Err(Pause::Refused("ERR String too long for LCS"));
    }
    let cells = (a.len() as u128 + 1) * (b.len() as u128 + 1);
    if cells * size_of::<u32>() as u128 > call.proto_max_bulk_len as u128 {
        return Err(Pause::Refused("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"));
    }
    let table = Table::new(&a, &b);
    let len = table.at(a.len(), b.len());
    if options.len {
        call.reply.integer(i64::from(len));
        return Ok(());
    }
    let (text, ranges) = table.walk(&a, &b);
    if !options.indexes {
        call.reply.bulk(&text);
        return Ok(());
    }
    let wanted = || ranges.iter().filter(|range| range.len >= options.min_match_len);
    call.reply.map(2);
    call.reply.bulk(b"matches");
    call.reply.array(wanted().count());
    for range in wanted() {
        call.reply.array(2 + usize::from(options.with_match_len));
        for start in [range.a, range.b] {
            call.reply.array(2);
            call.reply.integer(start as i64);
            call.reply.integer((start + range.len - 1) as i64);
        }
        if options.with_match_len {
            call.reply.integer(range.len as i64);
        }
    }
    call.reply.bulk(b"len");
    call.reply.integer(i64::from(len));
    Ok(())
}

/// LCS has an error of its own for keys that are no strings.
fn owned(call: &mut Call<'_>, at: usize) -> Result<Vec<u8>, Pause> {
    match call.keys.read(call.args.get(at))? {
        None => Ok(Vec::new()),
        Some(record) if record.kind == Kind::String => Ok(record.value.to_vec()),
        Some(_) => Err(Pause::Refused("ERR The specified keys must contain string values")),
    }
}

/// A run of bytes common to both strings.
#[derive(Debug, PartialEq, Eq)]
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

/// `at(i, j)` is the length for the first `i` bytes of one string and the first `j` of the other.
struct Table {
    cells: Vec<u32>,
    width: usize,
}

impl Table {
    fn new(a: &[u8], b: &[u8]) -> Self {
        let width = b.len() + 1;
        let mut table = Table { cells: vec![0; (a.len() + 1) * width], width };
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                table.cells[i * width + j] = if a[i - 1] == b[j - 1] {
                    table.at(i - 1, j - 1) + 1
                } else {
                    table.at(i - 1, j).max(table.at(i, j - 1))
                };
            }
        }
        table
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    /// The subsequence and its runs, the last run first. Which of several longest ones is taken, and how it is cut into
    /// runs, is as in Redis: a run ends where the walk leaves the diagonal or meets the beginning of a string.
    fn walk(&self, a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Match>) {
        let (mut i, mut j) = (a.len(), b.len());
        let (mut text, mut ranges) = (Vec::new(), Vec::new());
        let mut open: Option<Match> = None;
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                text.push(a[i - 1]);
                i -= 1;
                j -= 1;
                let len = open.map_or(0, |run| run.len) + 1;
                open = Some(Match { a: i, b: j, len });
            } else {
                if self.at(i - 1, j) > self.at(i, j - 1) {
                    i -= 1;
                } else {
                    j -= 1;
                }
                ranges.extend(open.take());
            }
        }
        ranges.extend(open);
        text.reverse();
        (text, ranges)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Client;

    fn client() -> Client {
        let mut client = Client::new();
        client.run("MSET key1 ohmytext key2 mynewtext");
        client
    }

    #[test]
    fn text_and_length() {
        let mut client = client();
        assert_eq!(client.run("LCS key1 key2"), "$6\r\nmytext\r\n");
        assert_eq!(client.run("LCS key1 key2 LEN"), ":6\r\n");
        assert_eq!(client.run("LCS key1 missing"), "$0\r\n\r\n");
        assert_eq!(client.run("LCS missing missing LEN"), ":0\r\n");
    }

    #[test]
    fn indexes() {
        let mut client = client();
        assert_eq!(
            client.run("LCS key1 key2 IDX"),
            "*4\r\n$7\r\nmatches\r\n*2\r\n*2\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n*2\r\n*2\r\n:2\r\n:3\r\n*2\r\n:0\r\n:1\r\n\
             $3\r\nlen\r\n:6\r\n"
        );
        assert_eq!(
            client.run("LCS key1 key2 IDX MINMATCHLEN 4 WITHMATCHLEN"),
            "*4\r\n$7\r\nmatches\r\n*1\r\n*3\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n:4\r\n$3\r\nlen\r\n:6\r\n"
        );
        client.run("HELLO 3");
        assert!(client.run("LCS key1 key2 IDX MINMATCHLEN 9").starts_with("%2\r\n$7\r\nmatches\r\n*0\r\n"));
    }

    #[test]
    fn refusals() {
        let mut client = client();
        assert_eq!(
            client.run("LCS key1 key2 IDX LEN"),
            "-ERR If you want both the length and indexes, please just use IDX.\r\n"
        );
        assert_eq!(client.run("LCS key1 key2 MINMATCHLEN"), "-ERR syntax error\r\n");
    }
}
