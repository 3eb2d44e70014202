//! Reminders of keys that expire: however their times change, there is one a key, and it goes with the key.

use ferrite_hybridlog::{Held, Store, StoreConfig, WorkerHandle};
use ferrite_keyspace::{Databases, Due, Expiry, Keyspace, Lent, Scratch, expire_due};
use ferrite_telemetry::TraceBuffer;

const START_MS: u64 = 1_700_000_000_000;
const CYCLE_MS: u64 = 100;
const KEYS: u64 = 100;

struct Server {
    worker: WorkerHandle,
    databases: Databases,
    scratch: Scratch,
    trace: TraceBuffer,
    due: Due,
    now_ms: u64,
}

impl Server {
    fn new() -> Self {
        let store = Store::new(StoreConfig {
            page_size: 1 << 16,
            mutable_pages: 512,
            read_only_pages: 1,
            index_buckets: 256,
            workers: 1,
            hash_seed: 11,
        });
        let mut trace = TraceBuffer::new(|| 0);
        trace.configure(None);
        Server {
            worker: store.worker(0),
            databases: Databases::new(2),
            scratch: Scratch::new(5),
            trace,
            due: Due::default(),
            now_ms: START_MS,
        }
    }

    fn in_database<T>(&mut self, db: u32, work: impl FnOnce(&mut Keyspace<'_>) -> T) -> T {
        let done = {
            let mut pinned = self.worker.pin();
            let alone = pinned.exclusive();
            let lent = Lent {
                pinned: &alone,
                held: &Held::default(),
                trace: &mut self.trace,
                databases: &self.databases,
                aof: None,
                scratch: &mut self.scratch,
                now_ms: self.now_ms,
            };
            let mut keys = Keyspace::new(lent, db);
            let done = work(&mut keys);
            keys.commit();
            done
        };
        self.databases.absorb(&mut self.scratch);
        done
    }

    fn set(&mut self, db: u32, key: u64, ttl_ms: u64) {
        let expiry = if ttl_ms == 0 { Expiry::Never } else { Expiry::At(self.now_ms + ttl_ms) };
        self.in_database(db, |keys| keys.set(&key.to_le_bytes(), b"v", expiry).expect("there is room"));
    }

    fn delete(&mut self, db: u32, key: u64) {
        assert!(self.in_database(db, |keys| keys.delete(&key.to_le_bytes()).expect("in memory")));
    }

    /// What the active cycle does; gives the keys that were deleted.
    fn cycle(&mut self) -> u64 {
        self.now_ms += CYCLE_MS;
        while self.databases.take_due(self.now_ms, 64, &mut self.due) {
            self.look();
        }
        self.look();
        self.databases.take_stale(self.databases.stale_reminders(), &mut self.due);
        self.look();
        self.due.take_deleted().keys
    }

    fn look(&mut self) {
        {
            let pinned = self.worker.pin();
            let mut look = || {
                let lent = Lent {
                    pinned: &pinned,
                    held: &Held::default(),
                    trace: &mut self.trace,
                    databases: &self.databases,
                    aof: None,
                    scratch: &mut self.scratch,
                    now_ms: self.now_ms,
                };
                expire_due(lent, &mut self.due).expect("in memory")
            };
            while look() {}
        }
        self.databases.absorb(&mut self.scratch);
    }
}

#[test]
fn a_time_that_moves_to_and_fro_has_one_reminder_a_key() {
    let mut server = Server::new();
    for round in 0..400u64 {
        for key in 0..KEYS {
            // Up to ten seconds earlier than the time before, or later.
            server.set(0, key, 60_000 + (key * 7919 + round * 104_729) % 20_000);
        }
        server.cycle();
    }
    assert_eq!(server.databases.reminders(), KEYS);
    assert_eq!((server.databases.keys(0), server.databases.expires(0)), (KEYS, KEYS));
    let deleted: u64 = (0..900).map(|_| server.cycle()).sum();
    assert_eq!((deleted, server.databases.reminders()), (KEYS, 0), "and that one comes");
}

#[test]
fn a_key_that_is_deleted_leaves_no_reminder() {
    let mut server = Server::new();
    for round in 0..400 {
        for key in 0..KEYS {
            server.set(0, round * KEYS + key, 86_400_000);
        }
        for key in 0..KEYS {
            server.delete(0, round * KEYS + key);
        }
        server.cycle();
    }
    assert_eq!(server.databases.reminders(), 0);
}

#[test]
fn a_key_that_no_longer_expires_leaves_no_reminder() {
    let mut server = Server::new();
    for round in 0..100 {
        for key in 0..KEYS {
            server.set(0, key, 86_400_000 - round);
            server.set(0, key, 0);
        }
        server.cycle();
    }
    assert_eq!((server.databases.keys(0), server.databases.reminders()), (KEYS, 0));
}

#[test]
fn a_deletion_does_not_take_the_reminder_of_the_key_that_comes_after_it() {
    let mut server = Server::new();
    for _ in 0..50 {
        server.set(0, 1, 5_000);
        server.delete(0, 1);
        server.set(0, 1, 2_000);
        server.cycle();
    }
    assert_eq!(server.databases.reminders(), 1);
    let deleted: u64 = (0..25).map(|_| server.cycle()).sum();
    assert_eq!((deleted, server.databases.keys(0)), (1, 0));
}

#[test]
fn an_emptied_server_keeps_no_reminders() {
    let mut server = Server::new();
    for key in 0..20_000 {
        server.set(0, key, 86_400_000);
    }
    let full = server.databases.expiry_bytes();
    server.in_database(0, |keys| keys.flush_all().expect("there is room"));
    for _ in 0..20 {
        server.cycle();
    }
    assert_eq!(server.databases.reminders(), 0);
    assert!(server.databases.expiry_bytes() < full / 8, "{} of {full} bytes", server.databases.expiry_bytes());
}

#[test]
fn the_reminders_of_an_emptied_database_go_soon_and_those_of_others_stay() {
    let mut server = Server::new();
    for key in 0..40_000 {
        server.set(1, key, 86_400_000);
    }
    for key in 0..KEYS {
        server.set(0, key, 80_000_000);
    }
    server.in_database(1, |keys| keys.flush_db().expect("there is room"));
    for _ in 0..200 {
        server.cycle();
    }
    let left = server.databases.reminders();
    assert!((KEYS..5_000).contains(&left), "{left} reminders of {KEYS} keys");
    server.now_ms += 80_000_000;
    let deleted: u64 = (0..200).map(|_| server.cycle()).sum();
    assert_eq!((deleted, server.databases.keys(0)), (KEYS, 0));
}
