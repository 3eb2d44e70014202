//! Random command sequences over a few keys, so that commands meet each other's results.

use std::fmt;

use proptest::prelude::*;

/// A command as its arguments.
pub type Command = Vec<Vec<u8>>;

/// One step of a sequence.
#[derive(Clone)]
pub enum Step {
    Run(Command),
    /// Writes many other keys, so that in tiny regions what was there before moves to disk.
    Fill(u8),
}

impl fmt::Debug for Step {
    /// As one would type it: counterexamples are read by people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Run(command) => {
                let words: Vec<String> = command.iter().map(|arg| format!("'{}'", arg.escape_ascii())).collect();
                f.write_str(&words.join(" "))
            }
            Step::Fill(seed) => write!(f, "fill {seed}"),
        }
    }
}

fn arg(text: impl AsRef<[u8]>) -> Vec<u8> {
    text.as_ref().to_vec()
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0..6u8).prop_map(|n| arg(format!("k{n}"))),
        1 => Just(arg("")),
        1 => Just(vec![0, 255, b'\r', b'\n', b'k']),
    ]
}

fn integer() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (-20i64..200).prop_map(|n| arg(n.to_string())),
        1 => prop::sample::select(vec![i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1, 1 << 31]).prop_map(|n| arg(n.to_string())),
        1 => prop::sample::select(vec!["", "+1", "01", " 1", "1 ", "1.0", "9223372036854775808", "-0", "x", "0x10"]).prop_map(arg),
    ]
}

fn float() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (-1000i32..1000, 0..4u32).prop_map(|(n, places)| arg((f64::from(n) / 10f64.powi(places as i32)).to_string())),
        1 => prop::sample::select(vec!["inf", "-inf", "nan", "1e3", "5.0e3", "abc", "", " 1", "1e400", "3.0"]).prop_map(arg),
        1 => integer(),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => integer(),
        1 => float(),
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (0..2500usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        1 => prop::collection::vec(prop::sample::select(b"abcd".to_vec()), 0..60),
    ]
}

/// Unix times far enough ahead, or far enough back, that no run can cross them.
fn unix_seconds() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        5 => (4_000_000_000u64..4_000_000_050).prop_map(|n| arg(n.to_string())),
        1 => Just(arg("1")),
        1 => prop::sample::select(vec!["0", "-1", "x", "9223372036854775807"]).prop_map(arg),
    ]
}

fn unix_millis() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        5 => (4_000_000_000_000u64..4_000_000_000_050).prop_map(|n| arg(n.to_string())),
        1 => Just(arg("1")),
        1 => prop::sample::select(vec!["0", "-1", "x", "9223372036854775807"]).prop_map(arg),
    ]
}

fn command(parts: Vec<BoxedStrategy<Vec<u8>>>) -> BoxedStrategy<Command> {
    parts.boxed()
}

fn word(text: &'static str) -> BoxedStrategy<Vec<u8>> {
    // Commands are matched without regard to case.
    prop::bool::weighted(0.9)
        .prop_map(move |upper| if upper { arg(text) } else { arg(text.to_ascii_lowercase()) })
        .boxed()
}

fn set_options() -> impl Strategy<Value = Command> {
    let option = prop_oneof![
        3 => prop::sample::select(vec!["NX", "XX", "GET", "KEEPTTL", "bogus"]).prop_map(|name| vec![arg(name)]),
        1 => unix_seconds().prop_map(|at| vec![arg("EXAT"), at]),
        1 => unix_millis().prop_map(|at| vec![arg("PXAT"), at]),
        1 => prop::sample::select(vec!["0", "-5", "a", "100000"]).prop_map(|n| vec![arg("EX"), arg(n)]),
        1 => prop::sample::select(vec!["0", "-5", "a", "100000000"]).prop_map(|n| vec![arg("PX"), arg(n)]),
    ];
    prop::collection::vec(option, 0..3).prop_map(|options| options.concat())
}

fn strings() -> BoxedStrategy<Command> {
    let k = || key().boxed();
    let v = || value().boxed();
    let i = || integer().boxed();
    prop_oneof![
        8 => (word("SET"), key(), value(), set_options())
            .prop_map(|(name, k, v, options)| [vec![name, k, v], options].concat()),
        8 => command(vec![word("GET"), k()]),
        2 => command(vec![word("GETDEL"), k()]),
        2 => command(vec![word("GETSET"), k(), v()]),
        2 => command(vec![word("SETNX"), k(), v()]),
        1 => (key(), prop_oneof![
                Just(vec![]), Just(vec![arg("PERSIST")]), unix_seconds().prop_map(|at| vec![arg("EXAT"), at]),
                unix_millis().prop_map(|at| vec![arg("PXAT"), at]), Just(vec![arg("EX"), arg("0")]), Just(vec![arg("nope")]),
            ]).prop_map(|(k, options)| [vec![arg("GETEX"), k], options].concat()),
        1 => (key(), prop::sample::select(vec!["100000", "0", "-1", "x"]), value(), any::<bool>())
            .prop_map(|(k, n, v, milli)| vec![arg(if milli { "PSETEX" } else { "SETEX" }), k, arg(n), v]),
        3 => prop::collection::vec(key(), 0..4).prop_map(|keys| [vec![arg("MGET")], keys].concat()),
        3 => (prop::collection::vec((key(), value()), 0..4), any::<bool>(), prop::bool::weighted(0.1)).prop_map(|(pairs, nx, odd)| {
            let mut command = vec![arg(if nx { "MSETNX" } else { "MSET" })];
            pairs.into_iter().for_each(|(k, v)| command.extend([k, v]));
            if odd { command.push(arg("odd")); }
            command
        }),
        2 => command(vec![word("INCR"), k()]),
        2 => command(vec![word("DECR"), k()]),
        2 => command(vec![word("INCRBY"), k(), i()]),
        2 => command(vec![word("DECRBY"), k(), i()]),
        2 => command(vec![word("INCRBYFLOAT"), k(), float().boxed()]),
        4 => command(vec![word("APPEND"), k(), v()]),
        3 => command(vec![word("STRLEN"), k()]),
        3 => command(vec![word("GETRANGE"), k(), i(), i()]),
        1 => command(vec![word("SUBSTR"), k(), i(), i()]),
        3 => (key(), prop_oneof![(0..300i64).prop_map(|n| arg(n.to_string())), Just(arg("-1")), Just(arg("536870912")), Just(arg("x"))], value())
            .prop_map(|(k, at, v)| vec![arg("SETRANGE"), k, at, v]),
        2 => (key(), key(), prop::sample::select(vec![
                vec![], vec!["LEN"], vec!["IDX"], vec!["IDX", "MINMATCHLEN", "2"], vec!["IDX", "WITHMATCHLEN"],
                vec!["IDX", "LEN"], vec!["MINMATCHLEN", "x"], vec!["IDX", "MINMATCHLEN", "2", "WITHMATCHLEN"],
            ])).prop_map(|(a, b, options)| [vec![arg("LCS"), a, b], options.into_iter().map(arg).collect()].concat()),
    ]
    .boxed()
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => (0..6u8).prop_map(|n| arg(format!("f{n}"))),
        1 => Just(arg("")),
        1 => Just(arg("77")),
        1 => Just(vec![b'f', 0, 255, b'\r', b'\n']),
    ]
}

/// Mostly what Redis keeps in a listpack: there the order of the replies is compared, too.
fn field_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        10 => integer(),
        6 => float(),
        10 => prop::collection::vec(any::<u8>(), 0..=64),
        1 => (64..70usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        1 => (0..FIELD_VALUE_MAX, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ]
}

/// So that all fields together fit into a page of the tiny regions.
const FIELD_VALUE_MAX: usize = 400;

fn hashes() -> BoxedStrategy<Command> {
    let k = || key().boxed();
    let f = || field().boxed();
    let options = |sets: Vec<Vec<&'static str>>| {
        prop::sample::select(sets).prop_map(|words| words.into_iter().map(arg).collect::<Command>())
    };
    prop_oneof![
        10 => (prop::sample::select(vec!["HSET", "HSET", "HMSET", "hset"]), key(), prop::collection::vec((field(), field_value()), 0..5),
                prop::bool::weighted(0.05)).prop_map(|(name, k, pairs, odd)| {
            let mut command = vec![arg(name), k];
            pairs.into_iter().for_each(|(f, v)| command.extend([f, v]));
            if odd { command.push(arg("odd")); }
            command
        }),
        2 => command(vec![word("HSETNX"), k(), f(), field_value().boxed()]),
        4 => command(vec![word("HGET"), k(), f()]),
        2 => (key(), prop::collection::vec(field(), 0..5)).prop_map(|(k, fields)| [vec![arg("HMGET"), k], fields].concat()),
        4 => (key(), prop::collection::vec(field(), 0..4)).prop_map(|(k, fields)| [vec![arg("HDEL"), k], fields].concat()),
        3 => (prop::sample::select(vec!["HGETALL", "HKEYS", "HVALS", "HLEN"]), key()).prop_map(|(name, k)| vec![arg(name), k]),
        2 => (prop::sample::select(vec!["HEXISTS", "HSTRLEN"]), key(), field()).prop_map(|(name, k, f)| vec![arg(name), k, f]),
        3 => command(vec![word("HINCRBY"), k(), f(), integer().boxed()]),
        2 => command(vec![word("HINCRBYFLOAT"), k(), f(), float().boxed()]),
        1 => (key(), options(vec![
                vec![], vec!["0"], vec!["2"], vec!["-5"], vec!["100", "WITHVALUES"], vec!["-3", "withvalues"], vec!["x"], vec!["2", "what"],
                vec!["2", "WITHVALUES", "x"], vec!["-9223372036854775808"], vec!["9223372036854775807", "WITHVALUES"],
            ])).prop_map(|(k, options)| [vec![arg("HRANDFIELD"), k], options].concat()),
        2 => (key(), options(vec![
                vec!["0"], vec!["0"], vec!["0", "COUNT", "2"], vec!["7"], vec!["0", "MATCH", "f[1-3]"], vec!["0", "MATCH", "*", "COUNT", "1000"],
                vec!["x"], vec!["0", "COUNT", "0"], vec!["0", "MATCH"], vec!["0", "TYPE", "hash"], vec!["0", "NOVALUES"], vec!["-1"],
            ])).prop_map(|(k, options)| [vec![arg("HSCAN"), k], options].concat()),
    ]
    .boxed()
}

fn generic() -> BoxedStrategy<Command> {
    let k = || key().boxed();
    let condition = || {
        prop::collection::vec(prop::sample::select(vec!["NX", "XX", "GT", "LT", "zz"]), 0..3)
            .prop_map(|options| options.into_iter().map(arg).collect::<Command>())
    };
    prop_oneof![
        4 => (prop::sample::select(vec!["DEL", "UNLINK", "EXISTS", "TOUCH"]), prop::collection::vec(key(), 0..4))
            .prop_map(|(name, keys)| [vec![arg(name)], keys].concat()),
        2 => command(vec![word("TYPE"), k()]),
        2 => command(vec![word("OBJECT"), word("ENCODING"), k()]),
        4 => (prop::sample::select(vec!["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "PERSIST"]), key())
            .prop_map(|(name, k)| vec![arg(name), k]),
        3 => (key(), unix_seconds(), condition()).prop_map(|(k, at, options)| [vec![arg("EXPIREAT"), k, at], options].concat()),
        3 => (key(), unix_millis(), condition()).prop_map(|(k, at, options)| [vec![arg("PEXPIREAT"), k, at], options].concat()),
        2 => (prop::sample::select(vec!["EXPIRE", "PEXPIRE"]), key(), prop::sample::select(vec!["0", "-1", "500000000", "x", "9223372036854775807"]),
                // Two servers' clocks differ by a millisecond: GT and LT after a relative time would be a toss-up.
                prop::sample::select(vec![vec![], vec!["NX"], vec!["XX"], vec!["NX", "XX"]])
                    .prop_map(|options| options.into_iter().map(arg).collect::<Command>()))
            .prop_map(|(name, k, n, options)| [vec![arg(name), k, arg(n)], options].concat()),
        2 => (prop::sample::select(vec!["RENAME", "RENAMENX"]), key(), key()).prop_map(|(name, a, b)| vec![arg(name), a, b]),
        2 => (key(), key(), prop::sample::select(vec![
                vec![], vec!["REPLACE"], vec!["DB", "1"], vec!["DB", "1", "REPLACE"], vec!["DB", "99"], vec!["DB", "x"], vec!["what"],
            ])).prop_map(|(a, b, options)| [vec![arg("COPY"), a, b], options.into_iter().map(arg).collect()].concat()),
        1 => (key(), prop::sample::select(vec!["0", "1", "2", "16", "x"])).prop_map(|(k, db)| vec![arg("MOVE"), k, arg(db)]),
        1 => prop::sample::select(vec!["*", "k*", "k[0-2]", "k?", "nothing*", "k[^1]"]).prop_map(|pattern| vec![arg("KEYS"), arg(pattern)]),
        1 => Just(vec![arg("DBSIZE")]),
        1 => Just(vec![arg("RANDOMKEY")]),
        1 => (prop::sample::select(vec!["ENCODING", "REFCOUNT", "IDLETIME", "FREQ", "nope"]), key()).prop_map(|(what, k)| vec![arg("OBJECT"), arg(what), k]),
        1 => prop::sample::select(vec![vec!["0"], vec!["0", "COUNT", "0"], vec!["x"], vec!["0", "COUNT", "x"], vec!["0", "MATCH"], vec!["0", "what", "x"]])
            .prop_map(|options| [vec![arg("SCAN")], options.into_iter().map(arg).collect()].concat()),
    ]
    .boxed()
}

fn server() -> BoxedStrategy<Command> {
    prop_oneof![
        2 => prop::sample::select(vec!["0", "1", "2", "16", "-1", "x"]).prop_map(|db| vec![arg("SELECT"), arg(db)]),
        1 => prop::sample::select(vec![("0", "1"), ("1", "0"), ("0", "16"), ("x", "0"), ("0", "x")]).prop_map(|(a, b)| vec![arg("SWAPDB"), arg(a), arg(b)]),
        1 => prop::sample::select(vec![vec!["FLUSHDB"], vec!["FLUSHDB", "ASYNC"], vec!["FLUSHALL", "SYNC"], vec!["FLUSHDB", "what"]])
            .prop_map(|words| words.into_iter().map(arg).collect()),
        1 => prop::sample::select(vec![vec!["PING"], vec!["PING", "hello"], vec!["PING", "a", "b"], vec!["ECHO", "x"], vec!["ECHO"],
                vec!["CLIENT", "GETNAME"], vec!["CLIENT", "SETNAME", "me"], vec!["CLIENT", "SETNAME", "a b"], vec!["CLIENT", "nope"],
                vec!["CONFIG", "GET", "nothing"], vec!["nosuchcommand", "with", "args"], vec!["GET"], vec!["COMMAND", "GETKEYS", "SET", "a", "b"],
                vec!["COMMAND", "GETKEYS", "MSET", "a", "b", "c", "d"], vec!["COMMAND", "INFO", "get"],
                vec!["COMMAND", "INFO", "hset", "hgetall"], vec!["CONFIG", "GET", "hash-max-listpack-entries"], vec!["HSET", "k1"],
                vec!["HELLO", "9"], vec!["AUTH", "x"], vec!["SLOWLOG", "LEN", "x"], vec!["LASTSAVE", "x"]])
            .prop_map(|words| words.into_iter().map(arg).collect()),
    ]
    .boxed()
}

fn transactions() -> BoxedStrategy<Command> {
    prop_oneof![
        3 => Just(vec![arg("MULTI")]),
        4 => Just(vec![arg("EXEC")]),
        1 => Just(vec![arg("DISCARD")]),
        1 => prop::collection::vec(key(), 0..3).prop_map(|keys| [vec![arg("WATCH")], keys].concat()),
        1 => Just(vec![arg("UNWATCH")]),
    ]
    .boxed()
}

/// A sequence of `1..steps` commands.
pub fn sequence(steps: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        25 => strings().prop_map(Step::Run),
        25 => hashes().prop_map(Step::Run),
        20 => generic().prop_map(Step::Run),
        5 => server().prop_map(Step::Run),
        6 => transactions().prop_map(Step::Run),
        3 => any::<u8>().prop_map(Step::Fill),
    ];
    prop::collection::vec(step, 1..steps)
}

/// The commands that a [`Step::Fill`] stands for: about 60 KiB under keys that no other step touches.
pub fn fill(seed: u8) -> Vec<Command> {
    (0..40u8).map(|n| vec![arg("SET"), arg(format!("fill:{n}")), vec![seed.wrapping_add(n); 1500]]).collect()
}
