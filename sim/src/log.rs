//! The event log: one hash over everything that happened, in order, and the last events as text.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::net::SocketAddr;

/// How many events a failure report shows.
pub const EVENTS_KEPT: usize = 200;

/// What a disk was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoKind {
    Open,
    Read,
    Write,
    Sync,
    Allocate,
    Punch,
    SetLen,
    Rename,
    Remove,
    SyncDir,
}

/// One thing that happened. Bytes are in the log as their hash, so that it stays small and still differs when they do.
#[derive(Clone, Debug, Hash)]
pub enum Event {
    Connect {
        conn: u64,
        from: SocketAddr,
        to: SocketAddr,
    },
    Refused {
        to: SocketAddr,
    },
    Accept {
        conn: u64,
    },
    /// Bytes reached the receive buffer of `to`.
    Deliver {
        conn: u64,
        to: SocketAddr,
        len: usize,
        hash: u64,
    },
    Fin {
        conn: u64,
        to: SocketAddr,
    },
    Reset {
        conn: u64,
        why: &'static str,
    },
    /// `target` is a file's number or, for a directory, its path's hash.
    Submit {
        host: u32,
        id: u64,
        io: IoKind,
        target: u64,
        offset: u64,
        len: u64,
        hash: u64,
    },
    Done {
        host: u32,
        id: u64,
        result: Result<usize, ErrorKind>,
        hash: u64,
    },
    Boot {
        host: u32,
    },
    Killed {
        host: u32,
    },
    PowerLoss {
        host: u32,
        /// Hash of everything that survived.
        disk: u64,
    },
    /// A choice of the simulator or of a scenario.
    Decision {
        what: &'static str,
        value: u64,
    },
    /// A finished span in its canonical text.
    Span {
        text: String,
    },
    Note {
        text: String,
    },
    /// The scheduler's generator at the end: two histories whose events agree but whose schedules do not differ here.
    End {
        scheduler: u64,
    },
}

/// The log of one run.
#[derive(Debug, Default)]
pub struct EventLog {
    hash: StableHasher,
    count: u64,
    last: VecDeque<(u64, Event)>,
    spans: Vec<String>,
}

impl EventLog {
    /// Adds an event at a virtual time in nanoseconds.
    pub fn record(&mut self, at_ns: u64, event: Event) {
        at_ns.hash(&mut self.hash);
        event.hash(&mut self.hash);
        self.count += 1;
        if let Event::Span { text } = &event {
            self.spans.push(text.clone());
        }
        if self.last.len() == EVENTS_KEPT {
            self.last.pop_front();
        }
        self.last.push_back((at_ns, event));
    }

    /// The hash over all events so far, in their order.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// How many events were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Every [`Event::Span`]'s text, in order.
    pub fn spans(&self) -> &[String] {
        &self.spans
    }

    /// The last [`EVENTS_KEPT`] events, one line each.
    pub fn last(&self) -> Vec<String> {
        self.last.iter().map(|(at_ns, event)| format!("{:>14} ns  {event:?}", at_ns)).collect()
    }
}

/// What the log keeps of the bytes of a message or an I/O: their length above their CRC-32C. With [`StableHasher::of`] half of a
/// run would be hashing: it is compiled without optimisation, as all of this crate, and the CRC is not.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    (bytes.len() as u64) << 32 | u64::from(crc32c::crc32c(bytes))
}

/// A hash that is the same in every process (std's `RandomState` is not) and over every release of a hash crate.
///
/// Folded multiplication, one round a word; the state depends on the order of the words.
#[derive(Clone)]
pub struct StableHasher(u64);

impl StableHasher {
    /// The hash of some bytes alone.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut hasher = Self::default();
        hasher.write(bytes);
        hasher.finish()
    }
}

impl Default for StableHasher {
    fn default() -> Self {
        Self(0x243F_6A88_85A3_08D3)
    }
}

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        // The length, so that trailing zeros count.
        self.write_u64(bytes.len() as u64);
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9E37_79B9_7F4A_7C15) * u128::from(self.0.rotate_left(32) | 1);
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ word.rotate_left(17);
    }

    fn finish(&self) -> u64 {
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl fmt::Debug for StableHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(values: &[u64]) -> u64 {
        let mut log = EventLog::default();
        for &value in values {
            log.record(0, Event::Decision { what: "test", value });
        }
        log.hash()
    }

    #[test]
    fn the_hash_depends_on_order_count_and_value() {
        assert_eq!(hash_of(&[1, 2]), hash_of(&[1, 2]));
        assert_ne!(hash_of(&[1, 2]), hash_of(&[2, 1]));
        assert_ne!(hash_of(&[1, 2]), hash_of(&[1, 2, 2]));
        assert_ne!(hash_of(&[0]), hash_of(&[0, 0]));
        assert_ne!(StableHasher::of(b"a"), StableHasher::of(b"a\0"));
        assert_ne!(StableHasher::of(&[0; 8]), StableHasher::of(&[0; 16]));
    }

    #[test]
    fn only_the_last_events_are_kept_as_text() {
        let mut log = EventLog::default();
        for value in 0..EVENTS_KEPT as u64 + 5 {
            log.record(value, Event::Decision { what: "test", value });
        }
        let last = log.last();
        assert_eq!(last.len(), EVENTS_KEPT);
        assert_eq!(log.count(), EVENTS_KEPT as u64 + 5);
        assert!(last[0].contains("value: 5"), "{}", last[0]);
    }
}
