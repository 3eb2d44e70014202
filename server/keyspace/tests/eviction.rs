//! How well eviction chooses: hit rates of a cache, and who stays.

use std::sync::atomic::Ordering::Relaxed;

use ferrite_hybridlog::{Held, Store, StoreConfig, WorkerHandle};
use ferrite_keyspace::{
    Candidates, Databases, Evictor, Expiry, Keyspace, Lent, Policy, Random, Room, Scratch, Slice, evict_slice,
};
use ferrite_telemetry::TraceBuffer;

const KEYS: usize = 3000;
const START_MS: u64 = 1_700_000_000_000;

struct Cache {
    worker: WorkerHandle,
    databases: Databases,
    scratch: Scratch,
    trace: TraceBuffer,
    candidates: Option<Candidates>,
    now_ms: u64,
}

impl Cache {
    fn new(policy: Policy, maxmemory: u64) -> Self {
        let store = Store::new(StoreConfig {
            page_size: 1 << 16,
            mutable_pages: 512,
            read_only_pages: 1,
            index_buckets: 256,
            workers: 1,
            hash_seed: 11,
        });
        let databases = Databases::new(2);
        databases.limits.set_policy(policy);
        databases.limits.maxmemory.store(maxmemory, Relaxed);
        let mut trace = TraceBuffer::new(|| 0);
        trace.configure(None);
        Cache {
            worker: store.worker(0),
            databases,
            scratch: Scratch::new(5),
            trace,
            candidates: Some(Candidates::default()),
            now_ms: START_MS,
        }
    }

    fn with_key<T>(&mut self, key: &[u8], write: bool, work: impl FnOnce(&mut Keyspace<'_>) -> T) -> T {
        self.worker.set_access_clock((self.now_ms / 1000) as u32, self.databases.limits.access_mode());
        let done = {
            let pinned = self.worker.pin();
            let lent = Lent {
                pinned: &pinned,
                held: &Held::default(),
                trace: &mut self.trace,
                databases: &self.databases,
                aof: None,
                scratch: &mut self.scratch,
                now_ms: self.now_ms,
            };
            let mut keys = Keyspace::new(lent, 0);
            let _latch = pinned.latch(keys.hash(key), write);
            let done = work(&mut keys);
            keys.commit();
            done
        };
        self.databases.absorb(&mut self.scratch);
        done
    }

    fn get(&mut self, key: &[u8]) -> bool {
        self.with_key(key, false, |keys| keys.read(key).expect("in memory").is_some())
    }

    fn set(&mut self, key: &[u8], expiry: Expiry) {
        self.with_key(key, true, |keys| keys.set(key, &[b'v'; 100], expiry).expect("there is room"));
    }

    /// How the run ended, and how many keys went.
    fn make_room(&mut self) -> (Slice, u64) {
        let seed = self.scratch.random_seed();
        let candidates = self.candidates.take().expect("put back");
        let Some(mut evictor) = Evictor::new(&self.databases, seed, candidates) else {
            self.candidates = Some(Candidates::default());
            return (Slice::Nothing, 0);
        };
        let end = loop {
            let pinned = self.worker.pin();
            let lent = Lent {
                pinned: &pinned,
                held: &Held::default(),
                trace: &mut self.trace,
                databases: &self.databases,
                aof: None,
                scratch: &mut self.scratch,
                now_ms: self.now_ms,
            };
            match evict_slice(lent, &mut evictor).expect("in memory") {
                Slice::More => {}
                end => break end,
            }
        };
        self.databases.absorb(&mut self.scratch);
        let evicted = evictor.keys_evicted;
        self.candidates = Some(evictor.finish(&self.databases));
        (end, evicted)
    }
}

/// Zipf's law with the exponent 0.99, as YCSB has it.
struct Zipf {
    sums: Vec<f64>,
    random: Random,
}

impl Zipf {
    fn new(keys: usize) -> Self {
        let mut sum = 0.0;
        let sums = (1..=keys)
            .map(|rank| {
                sum += (rank as f64).powf(-0.99);
                sum
            })
            .collect();
        Zipf { sums, random: Random::new(3) }
    }

    fn draw(&mut self) -> usize {
        let at = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * self.sums[self.sums.len() - 1];
        self.sums.partition_point(|sum| *sum < at)
    }
}

/// The hit rate of a cache that holds a tenth of the keys, once it is full.
fn hit_rate(policy: Policy) -> f64 {
    // A record of 152 bytes with its entry in the index.
    let max = (KEYS / 10 * 160) as u64;
    let mut cache = Cache::new(policy, max);
    let mut zipf = Zipf::new(KEYS);
    let (warm, measured) = (20_000, 40_000);
    let mut hits = 0;
    for access in 0..warm + measured {
        // The clocks of records have seconds: twenty accesses each.
        cache.now_ms += 50;
        let key = format!("key:{:05}", zipf.draw());
        if cache.get(key.as_bytes()) {
            hits += usize::from(access >= warm);
            continue;
        }
        if cache.databases.room() == Room::Evict {
            assert_eq!(cache.make_room().0, Slice::Enough);
        }
        cache.set(key.as_bytes(), Expiry::Never);
        assert!(cache.databases.data_bytes() <= max + 160);
    }
    hits as f64 / measured as f64
}

#[test]
fn lru_and_lfu_keep_what_is_asked_for_better_than_random() {
    let (random, lru, lfu) =
        (hit_rate(Policy::AllkeysRandom), hit_rate(Policy::AllkeysLru), hit_rate(Policy::AllkeysLfu));
    // Seeded: the same figures each time.
    assert!(lru >= random + 0.05, "random {random}, lru {lru}, lfu {lfu}");
    assert!(lfu >= lru + 0.02, "random {random}, lru {lru}, lfu {lfu}");
}

#[test]
fn volatile_policies_take_keys_with_a_time_of_expiry_alone() {
    for policy in [Policy::VolatileLru, Policy::VolatileLfu, Policy::VolatileRandom, Policy::VolatileTtl] {
        let mut cache = Cache::new(policy, 0);
        for number in 0..100 {
            cache.set(format!("stays:{number}").as_bytes(), Expiry::Never);
            cache.set(format!("goes:{number}").as_bytes(), Expiry::At(START_MS + 1_000_000 + number));
        }
        // Persisted again: its reminder is of no use any more.
        cache.with_key(b"goes:5", true, |keys| keys.expire(b"goes:5", None).expect("there is room"));
        cache.databases.limits.maxmemory.store(1, Relaxed);
        assert_eq!(cache.make_room(), (Slice::Nothing, 99), "{policy:?}");
        assert_eq!((cache.databases.keys(0), cache.databases.expires(0)), (101, 0), "{policy:?}");
        assert_eq!(cache.databases.figures().evicted_keys, 99);
        assert!(cache.get(b"goes:5") && cache.get(b"stays:99") && !cache.get(b"goes:99"));
        assert_eq!(cache.databases.room(), Room::Evict);
    }
}

#[test]
fn the_nearest_end_goes_first() {
    let mut cache = Cache::new(Policy::VolatileTtl, 0);
    for number in 0..200u64 {
        cache.set(format!("key:{number:03}").as_bytes(), Expiry::At(START_MS + 1_000_000 * (number + 1)));
    }
    let bytes = cache.databases.data_bytes();
    cache.databases.limits.samples.store(10, Relaxed);
    cache.databases.limits.maxmemory.store(bytes / 2, Relaxed);
    cache.make_room();
    let left: Vec<u64> = (0..200).filter(|number| cache.get(format!("key:{number:03}").as_bytes())).collect();
    let late = left.iter().filter(|number| **number >= 100).count();
    assert!((90..110).contains(&left.len()) && late * 10 >= left.len() * 9, "{} left, {late} of them late", left.len());
}

#[test]
fn what_was_read_last_stays_and_what_was_not_goes() {
    let mut cache = Cache::new(Policy::AllkeysLru, 0);
    for number in 0..200 {
        cache.set(format!("key:{number:03}").as_bytes(), Expiry::Never);
    }
    cache.now_ms += 60_000;
    for number in 0..50 {
        assert!(cache.get(format!("key:{number:03}").as_bytes()));
    }
    cache.databases.limits.samples.store(10, Relaxed);
    cache.databases.limits.maxmemory.store(cache.databases.data_bytes() / 2, Relaxed);
    cache.make_room();
    let read = (0..50).filter(|number| cache.get(format!("key:{number:03}").as_bytes())).count();
    assert!(read >= 48, "{read} of 50");
}

#[test]
fn an_expired_key_goes_as_expired_and_nothing_goes_without_a_policy() {
    let mut cache = Cache::new(Policy::AllkeysRandom, 1);
    cache.set(b"key", Expiry::At(START_MS + 10));
    cache.now_ms += 1000;
    assert_eq!(cache.make_room().0, Slice::Enough);
    let figures = cache.databases.figures();
    assert_eq!((figures.expired_keys, figures.evicted_keys, cache.databases.keys(0)), (1, 0, 0));
    for policy in [Policy::NoEviction, Policy::Spill] {
        cache.databases.limits.set_policy(policy);
        cache.set(b"other", Expiry::Never);
        assert_eq!(cache.make_room(), (Slice::Nothing, 0));
        assert_eq!(cache.databases.keys(0), 1);
    }
}
