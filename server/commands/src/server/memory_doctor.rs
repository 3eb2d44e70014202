//! MEMORY DOCTOR: what the accounts and the operating system's figures say is wrong.

use std::fmt::Write;

use super::info::InfoSnapshot;

/// Below this nothing is worth a word.
const TOO_LITTLE: u64 = 5 << 20;
/// What one finding needs to be one, in bytes.
const WORTH_A_WORD: u64 = 10 << 20;
/// Overflow buckets among all buckets: more than one in so many.
const OVERFLOW_ONE_IN: u64 = 4;

/// The report: one line a finding.
pub(super) fn report(info: &InfoSnapshot) -> String {
    let memory = &info.memory;
    let used = memory.accounts.total();
    if used - memory.accounts.startup.min(used) < TOO_LITTLE {
        return "The server holds too little data for its memory to be judged.\n".to_owned();
    }
    let mut found = String::new();
    let mut say = |text: std::fmt::Arguments<'_>| writeln!(found, "* {text}").expect("a String takes everything");
    if memory.rss > used + used / 10 && memory.rss - used > WORTH_A_WORD {
        say(format_args!(
            "Resident memory ({} bytes) is more than a tenth above what is accounted for ({used} bytes): the allocator \
             keeps freed memory, or buffers of clients have grown. MEMORY PURGE gives back what the server keeps itself.",
            memory.rss
        ));
    }
    if memory.peak > used + used / 2 && memory.peak - used > WORTH_A_WORD {
        say(format_args!(
            "Memory once was {} bytes, now {used} bytes are in use: the allocator may not have given all of the rest back.",
            memory.peak
        ));
    }
    if memory.index_overflow_buckets > WORTH_A_WORD / 64
        && memory.index_overflow_buckets * OVERFLOW_ONE_IN > memory.index_buckets
    {
        say(format_args!(
            "{} of the index's {} buckets have overflowed: lookups follow long chains. Start with a larger \
             storage.index_size_mb.",
            memory.index_overflow_buckets, memory.index_buckets
        ));
    }
    let clients = memory.accounts.clients;
    if clients > used / 5 && clients > WORTH_A_WORD {
        say(format_args!(
            "Buffers of {} clients take {clients} bytes: pipelines are long, or replies are not read. CLIENT LIST shows whose.",
            info.clients.connected
        ));
    }
    if memory.accounts.aof_buffer > WORTH_A_WORD.max(used / 5) {
        say(format_args!(
            "{} bytes wait to be written to the append-only file: its disk is slower than the writes.",
            memory.accounts.aof_buffer
        ));
    }
    if memory.max != 0 && memory.policy == "noeviction" && memory.data > memory.max / 10 * 9 {
        say(format_args!(
            "The data ({} bytes) is close to maxmemory ({}) and the policy is noeviction: writes will be refused.",
            memory.data, memory.max
        ));
    }
    match found.is_empty() {
        true => "No problem with memory was found.\n".to_owned(),
        false => format!("What was found:\n{found}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> InfoSnapshot {
        let mut info = InfoSnapshot::default();
        info.memory.accounts.pages = 100 << 20;
        info.memory.rss = 102 << 20;
        info.memory.peak = 100 << 20;
        info
    }

    #[test]
    fn a_healthy_server_and_an_empty_one() {
        assert_eq!(report(&healthy()), "No problem with memory was found.\n");
        assert!(report(&InfoSnapshot::default()).starts_with("The server holds too little"));
    }

    #[test]
    fn each_finding_names_its_figures() {
        type Change = fn(&mut InfoSnapshot);
        let cases: [(Change, &str); 6] = [
            (|info| info.memory.rss = 200 << 20, "Resident memory (209715200 bytes)"),
            (|info| info.memory.peak = 300 << 20, "Memory once was 314572800 bytes"),
            (
                |info| (info.memory.index_buckets, info.memory.index_overflow_buckets) = (1 << 20, 1 << 19),
                "524288 of the index's 1048576 buckets",
            ),
            (
                |info| {
                    info.memory.accounts.clients = 50 << 20;
                    info.memory.rss += 50 << 20;
                },
                "take 52428800 bytes",
            ),
            (
                |info| {
                    info.memory.accounts.aof_buffer = 50 << 20;
                    info.memory.rss += 50 << 20;
                },
                "52428800 bytes wait",
            ),
            (
                |info| {
                    (info.memory.data, info.memory.max) = (95, 100);
                    info.memory.policy = "noeviction".into();
                },
                "The data (95 bytes)",
            ),
        ];
        for (change, expected) in cases {
            let mut info = healthy();
            change(&mut info);
            let text = report(&info);
            assert!(text.contains(expected) && text.lines().count() == 2, "{text}");
        }
    }
}
