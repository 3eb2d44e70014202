//! The engine against models, faults and other threads, on a disk in memory.
#![allow(clippy::disallowed_methods)]

mod compaction;
mod design;
mod faults;
mod flush;
mod growth;
mod model;
mod objects;
mod objects_in_pieces;
pub(crate) mod pages;
mod parts;
mod quarantine;
mod stress;
mod tiers;
mod world;

use crate::{
    FlushRun, Found, Held, Kind, LogDevice, NeedSpace, Pinned, ReadError, StorageError, Store, StoreConfig,
    WorkerHandle,
};
use ferrite_telemetry::TraceBuffer;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
pub(crate) use world::{FakeDisk, FakeWorld};

pub(crate) fn silent() -> TraceBuffer {
    TraceBuffer::new(|| 0)
}

/// One worker with a store on a disk in memory, driven as a session drives it.
pub(crate) struct Engine {
    pub(crate) store: Arc<Store>,
    pub(crate) world: FakeWorld,
    pub(crate) worker: WorkerHandle,
    pub(crate) device: LogDevice<FakeWorld>,
    trace: RefCell<TraceBuffer>,
    /// What the flush has told of.
    pub(crate) runs: Rc<RefCell<Vec<FlushRun>>>,
}

pub(crate) fn tiny(workers: usize) -> StoreConfig {
    StoreConfig { page_size: 4096, mutable_pages: 2, read_only_pages: 2, index_buckets: 4, workers, hash_seed: 7 }
}

impl Engine {
    pub(crate) fn new(config: StoreConfig) -> Self {
        Self::on(config, FakeWorld::new(FakeDisk::default()))
    }

    pub(crate) fn on(config: StoreConfig, world: FakeWorld) -> Self {
        Self::with(Store::new(config), world)
    }

    pub(crate) fn with(store: Arc<Store>, world: FakeWorld) -> Self {
        let files = world.block_on(crate::create_log(&store, &world, Path::new("log"))).unwrap();
        let runs: Rc<RefCell<Vec<FlushRun>>> = Rc::default();
        let told = runs.clone();
        let on_run = move |run| told.borrow_mut().push(run);
        world.start(crate::flush_task(store.clone(), world.clone(), files.clone(), on_run));
        let device = LogDevice::new(store.clone(), world.clone(), files);
        Self { worker: store.worker(0), device, store, world, trace: RefCell::new(silent()), runs }
    }

    /// Runs a command as the driver does: again after each disk read and each wait for space.
    pub(crate) fn run<T>(
        &self,
        mut command: impl FnMut(&Pinned<'_>, &Held, &mut TraceBuffer) -> Result<T, Wait>,
    ) -> Result<T, StorageError> {
        let mut held = Held::default();
        loop {
            let pinned = self.worker.pin();
            let wait = match command(&pinned, &held, &mut self.trace.borrow_mut()) {
                Ok(done) => return Ok(done),
                Err(wait) => wait,
            };
            drop(pinned);
            match wait {
                Wait::Records(addresses) => {
                    for address in addresses {
                        let read = self.world.block_on(self.device.read_record(address)).expect("the disk is sound");
                        held.insert(address, read.record);
                    }
                }
                Wait::Copy(need) => self.world.block_on(self.store.wait_for_copy(&need))?,
                Wait::Space(need) => self.world.block_on(self.store.wait_for_space(&need))?,
            }
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.run(|pinned, held, trace| {
            let key = pinned.key(0, key);
            let _latch = pinned.latch(key.hash, false);
            match pinned.find(&key, held, trace) {
                Found::Record(record) => Ok(Some(record.value.to_vec())),
                Found::Missing => Ok(None),
                Found::Cold(address) => Err(Wait::Records(vec![address])),
            }
        })
        .unwrap()
    }

    /// Where the key's record lies, which is on disk.
    pub(crate) fn cold_address(&self, key: &[u8]) -> u64 {
        let pinned = self.worker.pin();
        let key = pinned.key(0, key);
        let _latch = pinned.latch(key.hash, false);
        match pinned.find(&key, &Held::default(), &mut silent()) {
            Found::Cold(address) => address,
            other => panic!("{other:?}"),
        }
    }

    /// [`Engine::get`] on a disk that need not be sound, by so many reads at most.
    pub(crate) fn get_within(&self, reads: usize, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let mut held = Held::default();
        for _ in 0..reads {
            let cold = {
                let pinned = self.worker.pin();
                let key = pinned.key(0, key);
                let _latch = pinned.latch(key.hash, false);
                match pinned.find(&key, &held, &mut silent()) {
                    Found::Record(record) => return Ok(Some(record.value.to_vec())),
                    Found::Missing => return Ok(None),
                    Found::Cold(address) => address,
                }
            };
            held.insert(cold, self.world.block_on(self.device.read_record(cold))?.record);
        }
        panic!("it is looked for again and again");
    }

    pub(crate) fn set(&self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.run(|pinned, held, trace| {
            let key = pinned.key(0, key);
            let _latch = pinned.latch(key.hash, true);
            pinned.upsert(&key, Kind::String, 0, &[value], held, trace)?;
            Ok(())
        })
    }

    /// The value grows by `suffix`, as APPEND does it: the old value is one of the parts.
    pub(crate) fn append(&self, key: &[u8], suffix: &[u8]) -> Result<(), StorageError> {
        self.run(|pinned, held, trace| {
            let key = pinned.key(0, key);
            let _latch = pinned.latch(key.hash, true);
            match pinned.find(&key, held, trace) {
                Found::Cold(address) => return Err(Wait::Records(vec![address])),
                Found::Missing => pinned.upsert(&key, Kind::String, 0, &[suffix], held, trace)?,
                Found::Record(old) => {
                    pinned.upsert(&key, Kind::String, old.expire_at_ms, &[old.value, suffix], held, trace)?
                }
            };
            Ok(())
        })
    }

    pub(crate) fn delete(&self, key: &[u8]) -> Result<bool, StorageError> {
        self.run(|pinned, held, trace| {
            let key = pinned.key(0, key);
            let _latch = pinned.latch(key.hash, true);
            match pinned.find(&key, held, trace) {
                Found::Cold(address) => Err(Wait::Records(vec![address])),
                _ => Ok(pinned.delete(&key, held, trace)?),
            }
        })
    }

    /// Sets the expiry; gives the one there was.
    pub(crate) fn expire(&self, key: &[u8], at: u64) -> Option<u64> {
        self.run(|pinned, held, trace| {
            let key = pinned.key(0, key);
            let _latch = pinned.latch(key.hash, true);
            let old = match pinned.find(&key, held, trace) {
                Found::Cold(address) => return Err(Wait::Records(vec![address])),
                Found::Missing => return Ok(None),
                Found::Record(record) => record.expire_at_ms,
            };
            assert!(pinned.set_expiry(&key, at, held, trace)?.is_some());
            Ok(Some(old))
        })
        .unwrap()
    }

    pub(crate) fn scan(&self, buckets: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        let mut cursor = 0;
        loop {
            cursor = self
                .run(|pinned, held, _| {
                    pinned
                        .scan(cursor, buckets, 0, true, held, &mut |record| {
                            all.push((record.key.to_vec(), record.value.to_vec()));
                        })
                        .map_err(Wait::Records)
                })
                .unwrap();
            if cursor == 0 {
                return all;
            }
        }
    }
}

pub(crate) enum Wait {
    Records(Vec<u64>),
    Space(NeedSpace),
    Copy(NeedSpace),
}

impl From<NeedSpace> for Wait {
    fn from(need: NeedSpace) -> Self {
        Self::Space(need)
    }
}
