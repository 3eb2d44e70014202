//! Checkpoints of a store that changes while they are taken, and of machines that lose their power meanwhile.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use ferrite_io::World;
use ferrite_telemetry::TraceBuffer;
use proptest::prelude::*;

mod pins;
mod quarantine;

use super::load::read_checkpoint;
use super::{LoadError, Restored, Taking, keep, restore};
use crate::address::Address;
use crate::aof::Effect;
use crate::aof::testing::{Fate, TestWorld, run_with};
use crate::datadir::{
    DataDirConfig, NamedCheckpoint, OpenError, Recover, check_data_dir, named_checkpoints, page_size_needed,
    recover_data_dir,
};
use crate::objects::Bytes;
use crate::{
    Before, ByteStrings, Found, Held, Kind, Load, LogDevice, NeedSpace, Object, Pinned, Spot, Store, StoreConfig,
    WorkerHandle, create_log, flush_task, open_log, tend_index,
};

const LOG: &str = "data/hybrid.log";
const EXTENTS: &str = "data/hybrid.extents";
const KEYS: u8 = 40;

/// What the store shows: a value for each key of the spaces that are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    /// Counts the cuts.
    cut: u64,
    spaces: [u32; 2],
    next_space: u32,
    values: BTreeMap<(u32, u8), Vec<u8>>,
}

impl Model {
    fn new() -> Self {
        Self { spaces: [0, 1], next_space: 2, ..Self::default() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let words = [self.cut, self.spaces[0].into(), self.spaces[1].into(), self.next_space.into()];
        words.iter().for_each(|word| ByteStrings::push(&mut out, &word.to_le_bytes()));
        for ((space, key), value) in &self.values {
            ByteStrings::push(&mut out, &[&space.to_le_bytes()[..], &[*key], value].concat());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Self {
        let mut strings = ByteStrings::checked(bytes).expect("well-formed");
        let mut word = || u64::from_le_bytes(strings.next().expect("a word").try_into().expect("8 bytes"));
        let (cut, spaces, next_space) = (word(), [word() as u32, word() as u32], word() as u32);
        let values = strings.map(|entry| {
            let (space, rest) = entry.split_first_chunk().expect("a space");
            ((u32::from_le_bytes(*space), rest[0]), rest[1..].to_vec())
        });
        Self { cut, spaces, next_space, values: values.collect() }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Set {
        db: usize,
        key: u8,
        len: usize,
    },
    /// Makes a value longer: where it is, if it is a collection, which it is then.
    Grow {
        db: usize,
        key: u8,
        len: usize,
    },
    /// Gives the key another record with the same value.
    Touch {
        db: usize,
        key: u8,
    },
    Delete {
        db: usize,
        key: u8,
    },
    /// FLUSHDB beside another database, and FLUSHALL.
    Empty {
        db: usize,
    },
    ForgetAll,
    /// Begins a checkpoint, or walks over so many buckets of one.
    Walk {
        buckets: usize,
    },
    /// Ends the walk, and cuts.
    Cut,
    /// Ends the checkpoint.
    Finish,
    /// Lets other tasks run.
    Rest,
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![4 => 0..700usize, 1 => 4000..40_000usize];
    prop_oneof![
        20 => (0..2usize, 0..KEYS, len.clone()).prop_map(|(db, key, len)| Op::Set { db, key, len }),
        6 => (0..2usize, 0..KEYS, len).prop_map(|(db, key, len)| Op::Grow { db, key, len }),
        3 => (0..2usize, 0..KEYS).prop_map(|(db, key)| Op::Touch { db, key }),
        8 => (0..2usize, 0..KEYS).prop_map(|(db, key)| Op::Delete { db, key }),
        1 => (0..2usize).prop_map(|db| Op::Empty { db }),
        1 => Just(Op::ForgetAll),
        8 => (1..4usize).prop_map(|buckets| Op::Walk { buckets }),
        3 => Just(Op::Cut),
        3 => Just(Op::Finish),
        2 => Just(Op::Rest),
    ]
}

/// A collection, of which the written form is its bytes.
struct Growing(Vec<u8>);

impl Object for Growing {
    fn written_len(&self) -> usize {
        self.0.len()
    }
    fn write_part(&self, from: Spot, out: &mut [u8]) -> Spot {
        out.copy_from_slice(&self.0[from.byte..][..out.len()]);
        Spot { byte: from.byte + out.len(), ..from }
    }
    fn memory(&self) -> usize {
        self.0.len()
    }
    fn shed(&mut self) -> bool {
        false
    }
    fn duplicate(&self) -> Box<dyn Object> {
        Box::new(Self(self.0.clone()))
    }
}

fn decode(_: Kind, len: usize) -> Option<Box<dyn Load>> {
    Some(Box::new(Bytes::new(len, |bytes| Some(Box::new(Growing(bytes))))))
}

/// What a command lacks.
enum Wait {
    Cold(Address),
    Space(NeedSpace),
}

impl From<NeedSpace> for Wait {
    fn from(need: NeedSpace) -> Self {
        Self::Space(need)
    }
}

/// A process on a machine.
struct Process {
    world: TestWorld,
    handle: WorkerHandle,
    restored: Option<Restored>,
    trace: TraceBuffer,
}

impl Recover for Process {
    type Error = String;

    async fn restore(&mut self, checkpoint: &NamedCheckpoint) -> Result<Result<(), LoadError>, String> {
        let restored = restore(&self.handle, &self.world, checkpoint, Path::new(LOG)).await;
        Ok(restored.map(|restored| self.restored = Some(restored)))
    }

    async fn keep(&mut self, checkpoint: &NamedCheckpoint) -> Result<Result<(), LoadError>, String> {
        Ok(keep(self.handle.store(), &self.world, checkpoint).await)
    }

    async fn apply(&mut self, _: &[Effect<'_>]) -> Result<(), (usize, String)> {
        Err((0, "there is no append-only file".to_owned()))
    }
}

/// How a process is configured; anything may differ from one life to the next.
#[derive(Clone, Copy, Debug)]
struct Shape {
    page_size: usize,
    index_buckets: usize,
    seed: u64,
}

fn shape() -> impl Strategy<Value = Shape> {
    (0..3u32, 0..4u32, any::<u64>()).prop_map(|(pages, index, seed)| Shape {
        page_size: 4096 << pages,
        index_buckets: 1 << (2 * index),
        seed,
    })
}

impl Process {
    fn new(world: &TestWorld, shape: Shape) -> Self {
        let Shape { page_size, index_buckets, seed: hash_seed } = shape;
        let config =
            StoreConfig { page_size, mutable_pages: 2, read_only_pages: 1, index_buckets, workers: 2, hash_seed };
        let store = Store::with_objects(config, decode);
        let mut trace = TraceBuffer::new(|| 0);
        trace.configure(None);
        Self { world: world.clone(), handle: store.worker(0), restored: None, trace }
    }

    fn store(&self) -> Arc<Store> {
        self.handle.store().clone()
    }

    /// Runs a command, again when there is what it lacks.
    async fn run<T>(
        &mut self,
        device: &LogDevice<TestWorld>,
        command: impl Fn(&Pinned<'_>, &Held, &mut TraceBuffer) -> Result<T, Wait>,
    ) -> T {
        let mut held = Held::default();
        // A record that leads to nothing would be looked up for ever.
        for _ in 0..10_000 {
            let result = command(&self.handle.pin(), &held, &mut self.trace);
            match result {
                Ok(done) => return done,
                Err(Wait::Space(need)) => self.store().wait_for_space(&need).await.expect("a disk without faults"),
                Err(Wait::Cold(at)) => held.insert(at, device.read_record(at).await.expect("a sound log").record),
            }
        }
        panic!("it never ends");
    }

    async fn set(&mut self, device: &LogDevice<TestWorld>, space: u32, key: u8, value: &[u8]) {
        let name = name(key);
        self.run(device, |pinned, held, trace| {
            let key = pinned.key(space, &name);
            let _latch = pinned.latch(key.hash, true);
            let place = pinned.seek(&key, held);
            if let Before::Cold(address) = place.before() {
                return Err(Wait::Cold(address));
            }
            Ok(pinned.upsert_at(&place, &key, Kind::String, 0, &[value], held, trace).map(|_| ())?)
        })
        .await;
    }

    async fn grow(&mut self, device: &LogDevice<TestWorld>, space: u32, key: u8, more: &[u8]) {
        let name = name(key);
        self.run(device, |pinned, held, trace| {
            let key = pinned.key(space, &name);
            let _latch = pinned.latch(key.hash, true);
            let grown = match pinned.find(&key, held, trace) {
                Found::Cold(address) => return Err(Wait::Cold(address)),
                Found::Missing => more.to_vec(),
                Found::Record(record) if record.kind == Kind::List => {
                    let done = pinned.update_object(&key, more.len(), held, trace, |object| {
                        let object: &mut dyn Any = object;
                        object.downcast_mut::<Growing>().expect("a list grows").0.extend_from_slice(more);
                    })?;
                    assert!(done.is_some(), "it was found");
                    return Ok(());
                }
                Found::Record(record) => [record.value, more].concat(),
            };
            let place = pinned.seek(&key, held);
            let grown = Box::new(Growing(grown));
            Ok(pinned.upsert_object_at(&place, &key, Kind::List, 0, grown, held, trace).map(|_| ())?)
        })
        .await;
    }

    /// Makes a list that is in memory longer, without waiting for anything.
    fn push(&mut self, key: u8) -> Result<(), NeedSpace> {
        let (pinned, name) = (self.handle.pin(), name(key));
        let key = pinned.key(0, &name);
        let _latch = pinned.latch(key.hash, true);
        let push = |object: &mut dyn Object| {
            let object: &mut dyn Any = object;
            object.downcast_mut::<Growing>().expect("a list").0.push(9);
        };
        let done = pinned.update_object(&key, 1, &Held::default(), &mut self.trace, push)?;
        assert!(done.is_some(), "it is there");
        Ok(())
    }

    async fn touch(&mut self, device: &LogDevice<TestWorld>, space: u32, key: u8) {
        let name = name(key);
        self.run(device, |pinned, held, trace| {
            let key = pinned.key(space, &name);
            let _latch = pinned.latch(key.hash, true);
            match pinned.find(&key, held, trace) {
                Found::Cold(address) => Err(Wait::Cold(address)),
                _ => Ok(pinned.promote(&key, held).map(|_| ())?),
            }
        })
        .await;
    }

    async fn delete(&mut self, device: &LogDevice<TestWorld>, space: u32, key: u8) {
        let name = name(key);
        self.run(device, |pinned, held, trace| {
            let key = pinned.key(space, &name);
            let _latch = pinned.latch(key.hash, true);
            match pinned.find(&key, held, trace) {
                Found::Cold(address) => Err(Wait::Cold(address)),
                _ => Ok(pinned.delete(&key, held, trace).map(|_| ())?),
            }
        })
        .await;
    }

    async fn get(&mut self, device: &LogDevice<TestWorld>, space: u32, key: u8) -> Option<(Vec<u8>, bool)> {
        let name = name(key);
        self.run(device, |pinned, held, trace| {
            let key = pinned.key(space, &name);
            let _latch = pinned.latch(key.hash, false);
            match pinned.find(&key, held, trace) {
                Found::Record(record) if record.kind == Kind::List => {
                    let object: &dyn Any = record.object.expect("a list is one");
                    Ok(Some((object.downcast_ref::<Growing>().expect("it grows").0.clone(), true)))
                }
                Found::Record(record) => Ok(Some((record.value.to_vec(), record.object.is_some()))),
                Found::Missing => Ok(None),
                Found::Cold(address) => Err(Wait::Cold(address)),
            }
        })
        .await
    }
}

/// Keys of one hash's neighbourhood are as good as others: names of one byte and of many, some longer than half a page.
fn name(key: u8) -> Vec<u8> {
    match key % 11 {
        10 => vec![key; 9000],
        _ => vec![key; 1 + key as usize % 5 * 8],
    }
}

/// Runs a future for so many turns at most; `None` if it had not ended by then.
async fn within<T>(turns: usize, main: impl Future<Output = T>) -> Option<T> {
    let (mut main, mut left) = (pin!(main), turns);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        main.as_mut().poll(context).map(Some)
    })
    .await
}

fn config() -> DataDirConfig {
    DataDirConfig { aof: false, ..DataDirConfig::new("data") }
}

/// One life: what is found, then the operations. `finished` is the last cut of a checkpoint known to be in force.
async fn live(world: &TestWorld, shape: Shape, ops: &[Op], finished: &mut u64) {
    let mut process = Process::new(world, shape);
    let recovered = recover_data_dir(world, &config(), &mut process).await.expect("nothing is damaged");
    let (store, log) = (process.store(), Path::new(LOG));
    let mut model = Model::new();
    let files = match process.restored.take() {
        Some(restored) => {
            model = Model::decode(&restored.upper);
            assert_eq!(restored.chunks.concat(), model.cut.to_le_bytes());
            open_log(&store, world, log).await.expect("the log")
        }
        None => create_log(&store, world, log).await.expect("the log"),
    };
    assert!(model.cut >= *finished, "checkpoint {finished} was in force, and {} is found", model.cut);
    world.spawn(flush_task(store.clone(), world.clone(), files.clone(), |_| {}));
    let device = LogDevice::new(store.clone(), world.clone(), files.clone());
    let tending = (store.worker(1), LogDevice::new(store.clone(), world.clone(), files.clone()), world.clone());
    world.spawn(async move { tend_index(&tending.0, &tending.1, &tending.2).await });
    check(&mut process, &device, &model).await;
    let mut taking: Option<(Taking<TestWorld>, Option<u64>)> = None;
    for (number, op) in ops.iter().enumerate() {
        match *op {
            Op::Set { db, key, len } => {
                let value = [&(number as u32).to_le_bytes()[..], &vec![key; len]].concat();
                process.set(&device, model.spaces[db], key, &value).await;
                model.values.insert((model.spaces[db], key), value);
            }
            Op::Grow { db, key, len } => {
                let more = [&(number as u32).to_le_bytes()[..], &vec![!key; len]].concat();
                process.grow(&device, model.spaces[db], key, &more).await;
                model.values.entry((model.spaces[db], key)).or_default().extend(more);
            }
            Op::Touch { db, key } => process.touch(&device, model.spaces[db], key).await,
            Op::Delete { db, key } => {
                process.delete(&device, model.spaces[db], key).await;
                model.values.remove(&(model.spaces[db], key));
            }
            Op::Empty { db } => {
                let old = std::mem::replace(&mut model.spaces[db], model.next_space);
                model.next_space += 1;
                model.values.retain(|&(space, _), _| space != old);
                let mut pinned = process.handle.pin();
                pinned.exclusive().retire_space(old);
            }
            Op::ForgetAll => {
                model.values.clear();
                let mut pinned = process.handle.pin();
                pinned.exclusive().forget_all();
            }
            Op::Walk { buckets } => match &mut taking {
                Some((taking, None)) => {
                    taking.step(&process.handle, buckets);
                    taking.write().await.expect("a disk without faults");
                }
                Some((_, Some(_))) => {}
                None => {
                    let begun = recovered.checkpoints.begin(&process.handle, || {}).await;
                    taking = Some((begun.expect("a disk without faults"), None));
                }
            },
            Op::Cut => {
                let Some((taking, cut @ None)) = &mut taking else { continue };
                while taking.step(&process.handle, 1) {}
                taking.write().await.expect("a disk without faults");
                model.cut += 1;
                *cut = Some(model.cut);
                let mut pinned = process.handle.pin();
                taking.cut(&pinned.exclusive(), 0, model.encode());
            }
            Op::Finish => {
                let Some((mut taking, Some(cut))) = taking.take_if(|(_, cut)| cut.is_some()) else { continue };
                taking.settle(&device, log).await.expect("a disk without faults");
                taking.upper(&cut.to_le_bytes()).await.expect("a disk without faults");
                taking.finish().await.expect("a disk without faults");
                *finished = cut;
            }
            Op::Rest => ferrite_io::Clock::sleep(&world.clock, std::time::Duration::from_millis(1)).await,
        }
    }
    drop(taking);
    check(&mut process, &device, &model).await;
}

/// The store shows what the model has, and nothing else; and no extent is taken but by its values and by checkpoints.
async fn check(process: &mut Process, device: &LogDevice<TestWorld>, model: &Model) {
    let mut objects = 0;
    for space in 0..model.next_space {
        for key in 0..KEYS {
            let expected = model.values.get(&(space, key));
            if model.spaces.contains(&space) {
                let found = process.get(device, space, key).await;
                objects += usize::from(found.as_ref().is_some_and(|found| found.1));
                let found = found.map(|found| found.0);
                assert!(found.as_ref() == expected, "key {key} of space {space}");
            }
        }
    }
    account(process, objects).await;
}

/// The extents in use are those of so many objects, and those in limbo what only checkpoints in force name.
async fn account(process: &Process, objects: usize) {
    let (store, disk) = (process.store(), process.world.disk());
    let extents = &store.log.objects.extents;
    let read_only = store.stats().read_only;
    store.flushed(read_only - read_only % store.page_size() as u64).await.expect("a disk without faults");
    while store.retired.begin().is_some() || extents.free_some(1) {
        store.index_work.notify_one();
        ferrite_io::Clock::sleep(&process.world.clock, std::time::Duration::from_millis(1)).await;
    }
    let in_memory = store.log.objects.unwritten_count();
    assert_eq!(extents.stats().extents + in_memory, objects, "{in_memory} are in memory");
    let mut named = BTreeSet::new();
    for checkpoint in named_checkpoints(disk, Path::new("data")).await {
        let contents = read_checkpoint(disk, &checkpoint, &mut |_| {}).await.expect("it is in force");
        named.extend(contents.extents.iter().map(|extent| (extent.offset, extent.id, extent.bytes)));
    }
    named.retain(|&(offset, id, _)| !extents.belongs(offset, id));
    let stats = extents.stats();
    let bytes = named.iter().map(|(.., bytes)| bytes).sum();
    assert_eq!((stats.in_limbo, stats.limbo_bytes), (named.len(), bytes), "what only checkpoints name");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn power_loss_at_any_io_leaves_the_state_at_a_cut(
        lives in prop::collection::vec((shape(), prop::collection::vec(op(), 0..120), 1..2500usize), 1..5),
        fates in any::<u64>(),
    ) {
        let (mut world, mut finished, mut draw) = (TestWorld::default(), 0, fates | 1);
        let mut page_size = 4096;
        for (mut shape, ops, turns) in lives {
            // Never smaller pages: such a server does not start.
            page_size = shape.page_size.max(page_size);
            shape.page_size = page_size;
            let life = within(turns, live(&world, shape, &ops, &mut finished));
            run_with(&world.clock, life, world.tasks());
            let mut next = || {
                draw ^= draw << 13;
                draw ^= draw >> 7;
                draw ^= draw << 17;
                draw
            };
            let names_kept = next() % 2 == 0;
            let disk = world.disk.after_power_loss(names_kept, || [Fate::Kept, Fate::Lost, Fate::Garbage][(next() % 3) as usize]);
            world = TestWorld::with_disk(disk);
        }
        run_with(&world.clock, live(&world, Shape { page_size, index_buckets: 4, seed: 1 }, &[], &mut finished), world.tasks());
    }
}

#[test]
fn a_log_that_goes_on_with_larger_pages_is_sound() {
    let world = TestWorld::default();
    let mut finished = 0;
    for (round, page_size) in [4096, 16_384].into_iter().enumerate() {
        let ops = [Op::Set { db: 0, key: round as u8, len: 900 }, Op::Walk { buckets: 1 }, Op::Cut, Op::Finish];
        let live = live(&world, Shape { page_size, index_buckets: 1, seed: 0 }, &ops, &mut finished);
        run_with(&world.clock, live, world.tasks());
    }
    assert_eq!((finished, damage_found(&world)), (2, Vec::new()));
}

#[test]
fn a_server_with_smaller_pages_does_not_start_on_a_log_of_larger_ones() {
    let world = TestWorld::default();
    let ops = [Op::Set { db: 0, key: 39, len: 4020 }, Op::Walk { buckets: 1 }, Op::Cut, Op::Finish];
    let mut finished = 0;
    let live = live(&world, Shape { page_size: 8192, index_buckets: 1, seed: 0 }, &ops, &mut finished);
    run_with(&world.clock, live, world.tasks());
    let needed = run_with(&world.clock, page_size_needed(&world, Path::new("data")), world.tasks());
    assert_eq!(needed, Some(8192), "who has no size of its own takes this one");
    let nothing = TestWorld::default();
    assert_eq!(run_with(&nothing.clock, page_size_needed(&nothing, Path::new("data")), nothing.tasks()), None);
    let error = start(&world).expect_err("pages of 4096 bytes").to_string();
    assert!(error.contains("pages of 8192 bytes") && error.contains("storage.page_size has to be 8192"), "{error}");
    assert_eq!(damage_found(&world), [""; 0]);
}

/// A machine whose server has taken `checkpoints` of them; and the state at each cut.
fn with_checkpoints(checkpoints: u64) -> TestWorld {
    let world = TestWorld::default();
    let mut ops = Vec::new();
    for round in 0..checkpoints {
        ops.push(Op::Walk { buckets: 1 });
        for key in 0..KEYS {
            ops.push(Op::Set { db: key as usize % 2, key, len: 100 + round as usize });
            if key % 8 == 0 {
                ops.extend([Op::Delete { db: key as usize % 2, key }, Op::Walk { buckets: 1 }]);
            }
            if key % 8 == 3 {
                ops.push(Op::Grow { db: key as usize % 2, key, len: 5000 });
            }
        }
        ops.extend([Op::Cut, Op::Finish]);
    }
    let mut finished = 0;
    let shape = Shape { page_size: 4096, index_buckets: 4, seed: 1 };
    run_with(&world.clock, live(&world, shape, &ops, &mut finished), world.tasks());
    assert_eq!(finished, checkpoints);
    world
}

/// What a start finds: the number of the cut.
fn start(world: &TestWorld) -> Result<u64, OpenError> {
    let shape = Shape { page_size: 4096, index_buckets: 4, seed: 1 };
    let main = async {
        let mut process = Process::new(world, shape);
        recover_data_dir(world, &config(), &mut process).await?;
        Ok(process.restored.map_or(0, |restored| Model::decode(&restored.upper).cut))
    };
    run_with(&world.clock, main, world.tasks())
}

fn damage_found(world: &TestWorld) -> Vec<String> {
    let report = run_with(&world.clock, check_data_dir(world, Path::new("data"), "hybrid.log"), world.tasks());
    report.expect("it can be looked at").damage.iter().map(ToString::to_string).collect()
}

fn checkpoint_files(world: &TestWorld) -> Vec<PathBuf> {
    (1..9)
        .map(|number| format!("data/checkpoint-{number}.ckpt").into())
        .filter(|path: &PathBuf| world.disk.exists(path))
        .collect()
}

#[test]
fn the_last_two_are_kept_and_a_damaged_one_is_passed_over() {
    let world = with_checkpoints(3);
    let files = checkpoint_files(&world);
    assert_eq!(files.len(), 2);
    assert_eq!(damage_found(&world), [""; 0]);
    let whole = world.disk.bytes(&files[1]);
    for at in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let copy = TestWorld::with_disk(world.disk.after_power_loss(true, || Fate::Kept));
        copy.disk.put(&files[1], &damaged);
        let found = damage_found(&copy);
        assert!(found.len() == 1 && found[0].contains(files[1].to_str().expect("a name")), "byte {at}: {found:?}");
        assert_eq!(start(&copy).expect("the one before"), 2, "byte {at}");
        // It is forgotten for good, since the log goes on behind the one before.
        assert_eq!(checkpoint_files(&copy), files[..1]);
        assert_eq!(start(&copy).expect("the one before"), 2);
    }
    for cut in (0..whole.len()).step_by(29) {
        let copy = TestWorld::with_disk(world.disk.after_power_loss(true, || Fate::Kept));
        copy.disk.put(&files[1], &whole[..cut]);
        assert_eq!(start(&copy).expect("the one before"), 2, "cut at {cut}");
    }
    world.disk.delete(&files[1]);
    assert_eq!(start(&world).expect("the one before"), 2);
}

#[test]
fn without_any_that_is_good_the_start_stops() {
    let world = with_checkpoints(2);
    let files = checkpoint_files(&world);
    let before = world.disk.bytes(Path::new(LOG));
    files.iter().for_each(|path| world.disk.delete(path));
    let error = start(&world).expect_err("nothing is left").to_string();
    assert!(
        error.starts_with("no checkpoint of data can be used") && error.contains("checkpoint-1.ckpt is damaged"),
        "{error}"
    );
    assert_eq!(world.disk.bytes(Path::new(LOG)), before, "and nothing was made anew");
}

#[test]
fn a_log_that_is_not_the_one_is_not_used() {
    let world = with_checkpoints(2);
    let (log, other) = (Path::new(LOG), with_checkpoints(2));
    let mut bytes = other.disk.bytes(log);
    // Another server's: another number, and a header that is sound.
    bytes[24] ^= 1;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..32]);
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    let whole = world.disk.bytes(log);
    let mut older = whole.clone();
    older[8] = 3;
    for (content, expected) in [
        (older, "it has format version 3 and this server reads version 4"),
        (bytes, "it is not the log that the checkpoint leads into"),
        (whole[..whole.len() / 4].to_vec(), "it ends there, and the checkpoint needs"),
        (Vec::new(), "it is shorter than its header"),
    ] {
        world.disk.put(log, &content);
        let error = start(&world).expect_err("no log").to_string();
        assert!(error.contains("data/hybrid.log is damaged at offset") && error.contains(expected), "{error}");
        assert!(damage_found(&world).iter().any(|found| found.contains(expected)));
    }
    world.disk.delete(log);
    assert!(
        start(&world)
            .expect_err("no log")
            .to_string()
            .contains("data/hybrid.log is damaged at offset 0: it is missing")
    );
    world.disk.put(log, &whole);
    assert_eq!(start(&world).expect("the log is back"), 2);
}

#[test]
fn damage_of_extents_is_found_by_a_check_and_of_those_written_last_by_a_start() {
    let world = with_checkpoints(2);
    let path = Path::new(EXTENTS);
    let whole = world.disk.bytes(path);
    let (mut found_by_start, mut found_by_check, mut changed) = (0, 0, 0);
    for at in (0..whole.len()).step_by(1201).chain([3, 20]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        let copy = TestWorld::with_disk(world.disk.after_power_loss(true, || Fate::Kept));
        copy.disk.put(path, &damaged);
        changed += 1;
        let found = damage_found(&copy);
        found_by_check += usize::from(!found.is_empty());
        assert!(found.iter().all(|line| line.starts_with("data/hybrid.extents is damaged at offset")), "{found:?}");
        match start(&copy) {
            Ok(2) => {}
            Ok(1) => found_by_start += 1,
            Err(_) if at < 32 => {}
            other => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(found_by_start > 10, "{found_by_start} of {changed}");
    assert!(found_by_check > changed / 2, "{found_by_check} of {changed}: the rest is free, or padding");
    let mut older = whole.clone();
    older[8] = 3;
    for (content, expected) in [
        (&older[..], "it has format version 3 and this server reads version 4"),
        (&whole[..whole.len() / 2], "it ends there, and the checkpoint needs"),
        (&b""[..], "it is shorter than its header"),
    ] {
        world.disk.put(path, content);
        assert!(damage_found(&world).iter().any(|found| found.contains(expected)), "{expected}");
    }
    world.disk.delete(path);
    assert!(
        start(&world)
            .expect_err("no extents")
            .to_string()
            .contains("data/hybrid.extents is damaged at offset 0: it is missing")
    );
    world.disk.put(path, &whole);
    assert_eq!(start(&world).expect("they are back"), 2);
}

/// A key of a database with a large list: what it holds after a restart.
fn list_after_restart(world: &TestWorld, key: u8) -> Option<Vec<u8>> {
    let world = TestWorld::with_disk(world.disk.after_power_loss(true, || Fate::Lost));
    let main = async {
        let mut process = Process::new(&world, Shape { page_size: 1 << 20, index_buckets: 4, seed: 9 });
        recover_data_dir(&world, &config(), &mut process).await.expect("nothing is damaged");
        let files = open_log(&process.store(), &world, Path::new(LOG)).await.expect("the log");
        let device = LogDevice::new(process.store(), world.clone(), files);
        process.get(&device, 0, key).await.map(|found| found.0)
    };
    run_with(&world.clock, main, world.tasks())
}

#[test]
fn a_change_of_what_a_checkpoint_needs_copies_the_small_and_waits_for_the_large() {
    let world = TestWorld::default();
    let shape = Shape { page_size: 1 << 20, index_buckets: 4, seed: 1 };
    let (small, large, gone) = (vec![1; 9000], vec![2; crate::objects::COPIED_MAX + 1], vec![3; 9000]);
    let main = async {
        let mut process = Process::new(&world, shape);
        let recovered = recover_data_dir(&world, &config(), &mut process).await.expect("a first start");
        let store = process.store();
        let files = create_log(&store, &world, Path::new(LOG)).await.expect("the log");
        let device = LogDevice::new(store.clone(), world.clone(), files.clone());
        world.spawn(flush_task(store.clone(), world.clone(), files, |_| {}));
        let mut taking = recovered.checkpoints.begin(&process.handle, || {}).await.expect("a sound disk");
        while taking.step(&process.handle, 1) {}
        // Nothing lacks space, and nothing is written before the cut.
        store.log.objects.extents.set_end(1 << 30);
        world.disk.faults.borrow_mut().fail_write = true;
        for (key, value) in [(1, &small), (3, &gone), (2, &large)] {
            process.grow(&device, 0, key, value).await;
        }
        taking.cut(&process.handle.pin().exclusive(), 0, Vec::new());
        process.push(1).expect("it is small");
        let need = process.push(2).expect_err("it is large");
        assert!(matches!(need.reason, crate::NeedReason::ObjectUnwritten { .. }), "{need:?}");
        // Who moves it without a change need not wait, but who changes it then has to.
        process.touch(&device, 0, 2).await;
        assert!(process.push(2).is_err());
        process.delete(&device, 0, 3).await;
        world.disk.faults.borrow_mut().fail_write = false;
        while store.wait_for_space(&need).await.is_err() {
            ferrite_io::Clock::sleep(&world.clock, std::time::Duration::from_millis(1)).await;
        }
        process.push(2).expect("it is written");
        taking.settle(&device, Path::new(LOG)).await.expect("a sound disk");
        taking.finish().await.expect("a sound disk");
        for (key, len) in [(1, small.len() + 1), (2, large.len() + 1)] {
            assert_eq!(process.get(&device, 0, key).await.map(|found| found.0.len()), Some(len));
        }
        assert_eq!(process.get(&device, 0, 3).await, None);
    };
    run_with(&world.clock, main, world.tasks());
    // And at the cut:
    for (key, value) in [(1, small), (2, large), (3, gone)] {
        assert!(list_after_restart(&world, key) == Some(value), "key {key}");
    }
}

#[test]
fn damage_in_the_log_is_found_by_a_check_and_what_was_written_last_by_a_start() {
    let world = with_checkpoints(2);
    let log = Path::new(LOG);
    let whole = world.disk.bytes(log);
    let (mut found_by_start, mut found_by_check, mut changed) = (0, 0, 0);
    for at in (4096..whole.len()).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        let copy = TestWorld::with_disk(world.disk.after_power_loss(true, || Fate::Kept));
        copy.disk.put(log, &damaged);
        changed += 1;
        let found = damage_found(&copy);
        found_by_check += usize::from(!found.is_empty());
        assert!(found.iter().all(|line| line.starts_with("data/hybrid.log is damaged at offset")), "{found:?}");
        match start(&copy) {
            Ok(2) => {}
            Ok(1) => found_by_start += 1,
            other => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(found_by_start > 10, "{found_by_start} of {changed}");
    assert!(
        found_by_check > changed / 8,
        "{found_by_check} of {changed}: the rest is slack and what follows a page's last record, which objects make early"
    );
}
