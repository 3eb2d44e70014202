//! The intended differences between Ferrite (as Redis 7.2) and the redis-server beside it (7.0.15). Each row carries an
//! example; a row whose example no longer differs fails the test, so that the table cannot rot.

/// One intended difference.
pub struct Difference {
    pub why: &'static str,
    /// A command, split at blanks, whose replies differ.
    pub example: &'static str,
    /// What Ferrite answers to the example (a prefix).
    pub ferrite: &'static str,
    /// What redis-server 7.0.15 answers (a prefix).
    pub redis: &'static str,
}

pub const DIFFERENCES: &[Difference] = &[
    Difference {
        why: "CLIENT SETINFO came with 7.2",
        example: "CLIENT SETINFO lib-name tester",
        ferrite: "+OK",
        redis: "-ERR unknown subcommand 'SETINFO'",
    },
    Difference {
        why: "CLIENT NO-TOUCH came with 7.2",
        example: "CLIENT NO-TOUCH ON",
        ferrite: "+OK",
        redis: "-ERR unknown subcommand 'NO-TOUCH'",
    },
    Difference {
        why: "COMMAND GETKEYS takes a command of one word since 7.2",
        example: "COMMAND GETKEYS PING",
        ferrite: "-ERR The command has no key arguments",
        redis: "-ERR wrong number of arguments for 'command|getkeys' command",
    },
    Difference {
        why: "help texts are in Ferrite's own words",
        example: "OBJECT HELP",
        ferrite: "*11\r\n+OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        redis: "*15\r\n+OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    },
    Difference {
        why: "OTEL.TRACES is Ferrite's own",
        example: "OTEL.TRACES GET 00000000000000000000000000000001",
        ferrite: "*0",
        redis: "-ERR unknown command 'OTEL.TRACES'",
    },
];
