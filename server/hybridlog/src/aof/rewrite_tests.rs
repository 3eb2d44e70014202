//! Segments and rewrites against a model of databases: power loss at any I/O, also during a roll and a rewrite.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ferrite_io::Clock;
use proptest::prelude::*;

use super::testing::{Fate, TestDisk, TestWorld, run};
use super::tests::{command, crash_after};
use super::{Aof, Effect, FsyncPolicy, RewriteError, Rewriter, aof_task};
use crate::datadir::{DataDirConfig, OpenError, Recovered, RecoveredAof, open_data_dir};

const DBS: usize = 2;
const KEYS: u8 = 5;

/// Databases as the keyspace has them: what a database shows is a space, and an emptied one shows a new space.
#[derive(Clone, Default)]
struct Model {
    spaces: Vec<BTreeMap<u8, (Vec<u8>, u64)>>,
    shown: [usize; DBS],
}

type State = [BTreeMap<u8, (Vec<u8>, u64)>; DBS];

impl Model {
    fn new() -> Self {
        Self { spaces: vec![BTreeMap::new(); DBS], shown: [0, 1] }
    }

    fn state(&self) -> State {
        self.shown.map(|space| self.spaces[space].clone())
    }

    fn empty(&mut self, db: usize) {
        self.shown[db] = self.spaces.len();
        self.spaces.push(BTreeMap::new());
    }

    fn apply(&mut self, effect: Effect<'_>) {
        match effect {
            Effect::Set { db, key, value, expire_at_ms } => {
                self.spaces[self.shown[db as usize]].insert(key[0], (value.to_vec(), expire_at_ms));
            }
            Effect::Delete { db, key } => _ = self.spaces[self.shown[db as usize]].remove(&key[0]),
            Effect::Expire { db, key, expire_at_ms } => {
                if let Some((_, at)) = self.spaces[self.shown[db as usize]].get_mut(&key[0]) {
                    *at = expire_at_ms;
                }
            }
            Effect::FlushDb { db } => self.empty(db as usize),
            Effect::FlushAll => (0..DBS).for_each(|db| self.empty(db)),
            Effect::SwapDb { a, b } => self.shown.swap(a as usize, b as usize),
            Effect::Rename { db, key, to_db, to } => {
                let value = self.spaces[self.shown[db as usize]].remove(&key[0]).expect("it is there");
                self.spaces[self.shown[to_db as usize]].insert(to[0], value);
            }
            Effect::Copy { db, key, to_db, to } => {
                let value = self.spaces[self.shown[db as usize]].get(&key[0]).expect("it is there").clone();
                self.spaces[self.shown[to_db as usize]].insert(to[0], value);
            }
            Effect::Collection { .. }
            | Effect::HashSet { .. }
            | Effect::HashAdd { .. }
            | Effect::HashDelete { .. }
            | Effect::Splice { .. } => {
                unreachable!("`encode` makes none of them")
            }
        }
    }
}

/// One command of up to a few effects.
fn op() -> impl Strategy<Value = Vec<(u8, u8, usize)>> {
    let kind = prop_oneof![8 => Just(0u8), 3 => Just(1), 3 => Just(2), 1 => Just(3), 1 => Just(4), 1 => Just(5),
        4 => Just(6), 3 => Just(7)];
    prop::collection::vec((kind, 0..KEYS * DBS as u8, prop_oneof![Just(20usize), Just(470), 0usize..1500]), 1..3)
}

/// Applies the command to the model and encodes its effects, as the log wants them now. `number` makes every value differ.
fn encode(op: &[(u8, u8, usize)], number: u64, aof: &Aof, model: &mut Model) -> Vec<u8> {
    let mut out = Vec::new();
    let mut tell = |effect: Effect<'_>, model: &mut Model| {
        effect.encode_into(&mut out);
        model.apply(effect);
    };
    for &(kind, key, len) in op {
        if kind >= 6 {
            // The value of one key under another, perhaps in the other database.
            let (db, key, to_db) = (u32::from(key / KEYS), [key % KEYS], (len % DBS) as u32);
            let to = [(len / DBS) as u8 % KEYS];
            let Some((value, expire_at_ms)) = model.state()[db as usize].get(&key[0]).cloned() else { continue };
            if (db, key) == (to_db, to) {
                continue;
            }
            match aof.is_walked() {
                false if kind == 6 => tell(Effect::Rename { db, key: &key, to_db, to: &to }, model),
                false => tell(Effect::Copy { db, key: &key, to_db, to: &to }, model),
                true => {
                    tell(Effect::Set { db: to_db, key: &to, value: &value, expire_at_ms }, model);
                    if kind == 6 {
                        tell(Effect::Delete { db, key: &key }, model);
                    }
                }
            }
            continue;
        }
        let (db, key) = (u32::from(key / KEYS), [key % KEYS]);
        let mut value = number.to_le_bytes().to_vec();
        value.resize(8 + len, number as u8 | 1);
        let effect = match kind {
            0 => Effect::Set { db, key: &key, value: &value, expire_at_ms: number % 3 },
            1 => Effect::Delete { db, key: &key },
            2 => Effect::Expire { db, key: &key, expire_at_ms: number },
            3 => Effect::FlushDb { db },
            4 => Effect::FlushAll,
            _ => Effect::SwapDb { a: 0, b: 1 },
        };
        tell(effect, model);
    }
    out
}

fn config(policy: FsyncPolicy, segment_max: u64) -> DataDirConfig {
    let config = DataDirConfig::new("data");
    DataDirConfig { policy, allocate_min: 1024, allocate_max: 4096, read_len: 4096, segment_max, ..config }
}

async fn open(world: &TestWorld, config: &DataDirConfig) -> Result<(Recovered<TestWorld>, Model), OpenError> {
    let mut model = Model::new();
    let recovered = open_data_dir(world, config, async |effect| {
        model.apply(effect);
        Ok::<(), OpenError>(())
    })
    .await?;
    Ok((recovered, model))
}

/// Lets the others run that often.
async fn turns(mut left: u32) {
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What the node does: a walk over all keys that lets commands run between any two of them.
async fn rewrite(rewriter: &Rewriter<TestWorld>, model: &RefCell<Model>) -> Result<(), RewriteError> {
    let mut base = rewriter.begin().await?;
    let (shown, covers) = (model.borrow().shown, rewriter.aof().position());
    for key in 0..KEYS {
        // Commands run meanwhile.
        turns(4).await;
        let effects = image(&model.borrow(), &shown, key);
        if let Err(error) = base.append(&effects).await {
            base.abandon().await;
            return Err(error);
        }
    }
    base.finish(covers).await
}

/// The key in each of these spaces, as the effects that make it.
fn image(model: &Model, shown: &[usize; DBS], key: u8) -> Vec<u8> {
    let mut effects = Vec::new();
    for (db, &space) in shown.iter().enumerate() {
        if let Some((value, expire_at_ms)) = model.spaces[space].get(&key) {
            let effect = Effect::Set { db: db as u32, key: &[key], value, expire_at_ms: *expire_at_ms };
            effect.encode_into(&mut effects);
        }
    }
    effects
}

/// Runs `body` with the log and its task.
fn process<T, R: Future<Output = T>>(
    world: &TestWorld,
    segment_max: u64,
    body: impl FnOnce(RecoveredAof<TestWorld>, RefCell<Model>) -> R,
) -> T {
    let (recovered, model) = run(&world.clock, open(world, &config(FsyncPolicy::Always, segment_max))).expect("opens");
    let RecoveredAof { shared, file, rewriter } = recovered.aof.expect("with a log");
    let task = aof_task(shared.clone(), world.clone(), file, |_| {});
    // `body` gets everything but the file, which the task has.
    let (spare, _) = run(&world.clock, open(&TestWorld::default(), &config(FsyncPolicy::No, 1))).expect("opens");
    let file = spare.aof.expect("with a log").file;
    let result = super::testing::run_with(
        &world.clock,
        body(RecoveredAof { shared, file, rewriter }, RefCell::new(model)),
        task,
    );
    assert_eq!(world.disk.faults.borrow().unreserved_writes, 0);
    result
}

async fn set(aof: &Aof, model: &RefCell<Model>, number: u64, len: usize) {
    let key = (number % u64::from(KEYS)) as u8;
    let effects = encode(&[(0, key, len)], number, aof, &mut model.borrow_mut());
    let position = command(aof, &effects).await.expect("space");
    aof.wait_durable(position).await.expect("durable");
}

fn names(world: &TestWorld) -> Vec<String> {
    let names = run(&world.clock, ferrite_io::Disk::list(&world.disk, Path::new("data"))).expect("lists");
    names.into_iter().filter(|name| name.ends_with(".aof")).collect()
}

fn state(world: &TestWorld) -> Result<State, OpenError> {
    run(&world.clock, open(world, &config(FsyncPolicy::Always, 1 << 20))).map(|(_, model)| model.state())
}

/// A machine whose log has a base and several segments, and its state.
fn with_base_and_segments() -> (TestWorld, State) {
    let world = TestWorld::default();
    let state = process(&world, 2000, async |aof, model| {
        for number in 0..16 {
            set(&aof.shared, &model, number, 400).await;
            if number == 6 {
                rewrite(&aof.rewriter, &model).await.expect("a rewrite");
            }
        }
        aof.shared.close().await.expect("closes");
        model.borrow().state()
    });
    assert!(
        names(&world).len() >= 4 && names(&world).iter().any(|name| name.ends_with(".base.aof")),
        "{:?}",
        names(&world)
    );
    (world, state)
}

#[test]
fn a_full_segment_is_followed_by_another() {
    let world = TestWorld::default();
    let (expected, size) = process(&world, 2000, async |aof, model| {
        for number in 0..20 {
            set(&aof.shared, &model, number, 400).await;
        }
        aof.shared.close().await.expect("closes");
        (model.borrow().state(), aof.shared.size())
    });
    let names = names(&world);
    assert!(names.len() >= 4 && names.contains(&"appendonly-4.aof".to_owned()), "{names:?}");
    let bytes: usize = names.iter().map(|name| world.disk.bytes(&Path::new("data").join(name)).len()).sum();
    // The last one has space ahead.
    assert!(size.current as usize <= bytes && bytes - size.current as usize <= 8192, "{size:?} of {bytes}");
    assert_eq!(size.base, 0);
    assert_eq!(state(&world).expect("starts"), expected);
}

#[test]
fn a_rewrite_leaves_what_the_keys_hold_and_removes_the_rest() {
    let world = TestWorld::default();
    let expected = process(&world, 1 << 20, async |aof, model| {
        for number in 0..100 {
            set(&aof.shared, &model, number, 400).await;
        }
        let before = aof.shared.size().current;
        rewrite(&aof.rewriter, &model).await.expect("a rewrite");
        let after = aof.shared.size();
        assert!(before > 40_000 && after.current < 5000 && after.base == after.current, "{before} {after:?}");
        set(&aof.shared, &model, 100, 10).await;
        aof.shared.close().await.expect("closes");
        model.borrow().state()
    });
    assert_eq!(names(&world), ["appendonly-2.aof", "appendonly-3.base.aof"]);
    assert_eq!(state(&world).expect("starts"), expected);
    // And once more, over the base.
    process(&world, 1 << 20, async |aof, model| {
        assert!(aof.shared.size().base > 2000, "{:?}", aof.shared.size());
        rewrite(&aof.rewriter, &model).await.expect("a rewrite");
        rewrite(&aof.rewriter, &model).await.expect("a rewrite without a write before it");
    });
    assert_eq!(names(&world).len(), 2);
    assert_eq!(state(&world).expect("starts"), expected);
}

#[test]
fn a_rewrite_syncs_what_it_has_seen_under_every_policy() {
    let world = TestWorld::default();
    process(&world, 1 << 20, async |aof, model| {
        aof.shared.set_policy(FsyncPolicy::No);
        set_without_sync(&aof.shared, &model, 1).await;
        rewrite(&aof.rewriter, &model).await.expect("a rewrite");
        assert_eq!(aof.shared.durable(), aof.shared.position());
    });
}

#[test]
fn databases_swapped_and_emptied_during_a_rewrite_are_right_afterwards() {
    let changes: [&[Effect<'_>]; 4] = [
        &[Effect::SwapDb { a: 0, b: 1 }],
        &[Effect::FlushDb { db: 0 }, Effect::Set { db: 0, key: &[3], value: b"after", expire_at_ms: 0 }],
        &[Effect::FlushAll, Effect::SwapDb { a: 0, b: 1 }],
        &[Effect::Delete { db: 0, key: &[1] }, Effect::Expire { db: 0, key: &[2], expire_at_ms: 9 }],
    ];
    for (change, before_key) in changes.into_iter().flat_map(|change| (0..KEYS).map(move |key| (change, key))) {
        let world = TestWorld::default();
        let expected = process(&world, 1 << 20, async |aof, model| {
            for number in 0..4 {
                set(&aof.shared, &model, number, 10).await;
            }
            let mut base = aof.rewriter.begin().await.expect("begins");
            let (shown, covers) = (model.borrow().shown, aof.shared.position());
            for key in 0..KEYS {
                if key == before_key {
                    let mut effects = Vec::new();
                    for &effect in change {
                        model.borrow_mut().apply(effect);
                        effect.encode_into(&mut effects);
                    }
                    command(&aof.shared, &effects).await.expect("space");
                }
                let effect = image(&model.borrow(), &shown, key);
                base.append(&effect).await.expect("space");
            }
            base.finish(covers).await.expect("in place");
            model.borrow().state()
        });
        assert_eq!(state(&world).expect("starts"), expected, "{change:?} before key {before_key}");
    }
}

async fn set_without_sync(aof: &Aof, model: &RefCell<Model>, number: u64) {
    let effects = encode(&[(0, 1, 10)], number, aof, &mut model.borrow_mut());
    command(aof, &effects).await.expect("space");
}

#[test]
fn a_failed_rewrite_leaves_the_log_as_it_was() {
    for fault in ["full", "sync at the end"] {
        let world = TestWorld::default();
        let expected = process(&world, 1 << 20, async |aof, model| {
            for number in 0..10 {
                set(&aof.shared, &model, number, 300).await;
            }
            aof.shared.wait_for_space(2000).await.expect("space");
            let mut base = aof.rewriter.begin().await.expect("begins");
            let covers = aof.shared.position();
            let error = match fault {
                "full" => {
                    world.disk.faults.borrow_mut().free = Some(100);
                    let error = base.append(&[0; 200]).await.expect_err("no space");
                    base.abandon().await;
                    error
                }
                _ => {
                    world.disk.faults.borrow_mut().fail_sync = true;
                    base.finish(covers).await.expect_err("not durable")
                }
            };
            assert!(error.to_string().contains("data/appendonly-3.base.aof"), "{error}");
            *world.disk.faults.borrow_mut() = Default::default();
            set(&aof.shared, &model, 10, 300).await;
            model.borrow().state()
        });
        assert_eq!(names(&world), ["appendonly-1.aof", "appendonly-2.aof"], "{fault}");
        assert_eq!(state(&world).expect("starts"), expected);
    }
}

#[test]
fn a_segment_that_cannot_be_followed_grows_on() {
    let world = TestWorld::default();
    process(&world, 2000, async |aof, model| {
        aof.shared.wait_for_space(20_000).await.expect("space");
        world.disk.faults.borrow_mut().free = Some(0);
        for number in 0..9 {
            set(&aof.shared, &model, number, 400).await;
        }
        assert_eq!(names(&world), ["appendonly-1.aof"]);
        let refused = aof.shared.roll().await.expect_err("no space").to_string();
        assert!(refused.contains("cannot allocate space for data/appendonly-"), "{refused}");
        *world.disk.faults.borrow_mut() = Default::default();
        world.clock.sleep(Duration::from_secs(2)).await;
        set(&aof.shared, &model, 10, 400).await;
        set(&aof.shared, &model, 11, 400).await;
        assert_eq!(names(&world).len(), 2);
    });
}

#[test]
fn a_segment_wanted_from_a_closed_log_is_refused() {
    let world = TestWorld::default();
    process(&world, 2000, async |aof, _| {
        aof.shared.close().await.expect("closes");
        let refused = aof.shared.roll().await.expect_err("closed").to_string();
        assert!(refused.contains("closed"), "{refused}");
    });
}

#[test]
fn what_was_not_finished_is_removed_at_the_next_start() {
    let (world, expected) = with_base_and_segments();
    let before = names(&world);
    world.disk.put(Path::new("data/appendonly-90.base.aof"), &[7; 900]);
    // A segment that was made and not yet named: its header, and space.
    world.disk.put(Path::new("data/appendonly-91.aof"), &[&[7; 512][..], &[0; 4096]].concat());
    world.disk.put(Path::new("data/appendonly-0.aof"), &[7; 5000]);
    world.disk.put(Path::new("data/notes.aof"), b"somebody's");
    assert_eq!(state(&world).expect("starts"), expected);
    assert_eq!(names(&world), [before, vec!["notes.aof".to_owned()]].concat());
}

#[test]
fn an_older_manifest_is_not_started_from() {
    let world = TestWorld::default();
    process(&world, 2000, async |_, _| ());
    let old = world.disk.bytes(Path::new("data/MANIFEST"));
    process(&world, 2000, async |aof, model| {
        for number in 0..16 {
            set(&aof.shared, &model, number, 400).await;
        }
    });
    world.disk.put(Path::new("data/MANIFEST"), &old);
    let message = state(&world).expect_err("older").to_string();
    assert!(message.starts_with("the manifest data/MANIFEST is older than data/appendonly-2.aof"), "{message}");
    assert!(names(&world).len() > 2, "nothing was removed");
}

/// A copy of the machine with one file changed.
fn changed(world: &TestWorld, name: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> TestWorld {
    let disk = world.disk.after_power_loss(true, || Fate::Kept);
    let path: PathBuf = Path::new("data").join(name);
    match change(disk.bytes(&path)) {
        Some(bytes) => disk.put(&path, &bytes),
        None => disk.delete(&path),
    }
    TestWorld::with_disk(disk)
}

#[test]
fn a_missing_short_or_foreign_file_stops_the_start_and_is_named() {
    let (world, expected) = with_base_and_segments();
    let mut names = names(&world);
    names.sort_by_key(|name| name.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u64>().ok());
    let sealed = &names[..names.len() - 1];
    for name in &names {
        let message = |change: &dyn Fn(Vec<u8>) -> Option<Vec<u8>>| {
            let copy = changed(&world, name, change);
            let message = state(&copy).map(|_| ()).expect_err(name).to_string();
            assert!(message.contains(&format!("data/{name}")), "{message}");
            message
        };
        assert!(message(&|_| None).contains("is missing although the manifest names it"));
        assert!(message(&|bytes| Some(bytes[..511].to_vec())).contains("its header is damaged"));
        assert!(message(&|_| Some(b"REDIS0011".to_vec())).contains("does not begin as"));
        for cut in [520, 540, 600] {
            assert!(message(&|bytes| Some(bytes[..cut].to_vec())).contains("is damaged at offset"), "{cut}");
        }
        // Another server's of the same number.
        let foreign = message(&|bytes| {
            let header =
                super::segment::SegmentHeader { salt: 1, ..super::segment::SegmentHeader::decode(&bytes).ok()? };
            Some([&header.encode()[..], &bytes[512..]].concat())
        });
        assert!(foreign.contains("is not the one that the manifest names"), "{foreign}");
    }
    for name in sealed {
        // Every byte of a frame's matters where there is more behind it: in a base, and in a sealed segment.
        let bytes = world.disk.bytes(&Path::new("data").join(name));
        let end = bytes.iter().rposition(|&byte| byte != 0).expect("frames") + 1;
        let mut corrupt = 0;
        for at in (512..end).step_by(11) {
            let copy = changed(&world, name, |mut bytes| {
                bytes[at] ^= 16;
                Some(bytes)
            });
            match state(&copy) {
                // Zeros between two groups.
                Ok(state) => assert_eq!(state, expected),
                Err(OpenError::Corrupt { path, offset, .. }) => {
                    assert!(path.ends_with(name) && offset <= at as u64, "{at}");
                    corrupt += 1;
                }
                Err(other) => panic!("{name} byte {at}: {other}"),
            }
        }
        assert!(corrupt > 30, "{name}: {corrupt}");
    }
}

#[derive(Clone, Debug)]
struct Life {
    polls: u32,
    policy: FsyncPolicy,
    segment_max: u64,
    ops: Vec<Vec<(u8, u8, usize)>>,
    /// Rewrites begin when so many commands have run.
    rewrites: Vec<usize>,
    killed: bool,
    names_kept: bool,
    fates: Vec<Fate>,
}

fn life() -> impl Strategy<Value = Life> {
    let fate = prop_oneof![Just(Fate::Kept), Just(Fate::Lost), Just(Fate::Garbage)];
    let policy = prop_oneof![2 => Just(FsyncPolicy::Always), 1 => Just(FsyncPolicy::No)];
    (
        (0u32..900, policy, prop_oneof![Just(1024u64), Just(2500), Just(1 << 20)]),
        prop::collection::vec(op(), 0..24),
        prop::collection::vec(0usize..24, 0..3),
        (any::<bool>(), any::<bool>()),
        prop::collection::vec(fate, 1..8),
    )
        .prop_map(|((polls, policy, segment_max), ops, mut rewrites, (killed, names_kept), fates)| {
            rewrites.sort_unstable();
            Life { polls, policy, segment_max, ops, rewrites, killed, names_kept, fates }
        })
}

/// What may be found after a crash: every state that the databases had, and which of them at the least.
struct History {
    states: RefCell<Vec<State>>,
    acknowledged: Cell<usize>,
}

async fn live(world: &TestWorld, life: &Life, history: &History, number: &Cell<u64>) -> Result<(), TestCaseError> {
    let (recovered, model) =
        open(world, &config(life.policy, life.segment_max)).await.expect("a power loss is no corruption");
    let found = {
        let (states, state) = (history.states.borrow(), model.state());
        let at_least = history.acknowledged.get();
        states.iter().skip(at_least).position(|known| *known == state).map(|after| at_least + after)
    };
    prop_assert!(found.is_some(), "neither acknowledged nor ever there: {:?}", model.state());
    history.states.borrow_mut().truncate(found.unwrap_or_default() + 1);
    history.acknowledged.set(found.unwrap_or_default());
    let RecoveredAof { shared: aof, file, rewriter } = recovered.aof.expect("with a log");
    let (model, done) = (RefCell::new(model), Cell::new(0));
    let mut task = pin!(aof_task(aof.clone(), world.clone(), file, |_| {}));
    let mut session = pin!(async {
        for (index, op) in life.ops.iter().enumerate() {
            number.set(number.get() + 1);
            let (after, effects) = loop {
                let mut after = model.borrow().clone();
                let effects = encode(op, number.get(), &aof, &mut after);
                if aof.reserve(effects.len()).is_ok() {
                    break (after, effects);
                }
                // Meanwhile a walk may begin: the command runs again.
                aof.wait_for_space(effects.len()).await.expect("space");
            };
            history.states.borrow_mut().push(after.state());
            *model.borrow_mut() = after;
            let position = aof.append(&effects);
            aof.release(effects.len());
            done.set(index + 1);
            if index % 3 != 2 && life.policy == FsyncPolicy::Always {
                let appended = history.states.borrow().len() - 1;
                aof.wait_durable(position).await.expect("durable");
                history.acknowledged.set(history.acknowledged.get().max(appended));
            } else {
                turns(3).await;
            }
        }
        done.set(usize::MAX);
    });
    let mut rewrites = pin!(async {
        for &at in &life.rewrites {
            while done.get() < at {
                turns(1).await;
            }
            rewrite(&rewriter, &model).await.expect("nothing fails");
        }
    });
    let (mut session_ended, mut rewrites_ended) = (false, false);
    poll_fn(|context| {
        session_ended = session_ended || session.as_mut().poll(context).is_ready();
        rewrites_ended = rewrites_ended || rewrites.as_mut().poll(context).is_ready();
        assert!(task.as_mut().poll(context).is_pending());
        if session_ended && rewrites_ended { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Power is lost at any I/O: in a start, in a roll, in a rewrite, in the change of the manifest, again and again. What is
    /// found is a state that there was, no older than what was acknowledged, under every policy.
    #[test]
    fn a_power_loss_at_any_moment_gives_a_state_that_there_was(lives in prop::collection::vec(life(), 1..6)) {
        let mut world = TestWorld::default();
        let history = History { states: RefCell::new(vec![Model::new().state()]), acknowledged: Cell::new(0) };
        let number = Cell::new(0);
        let last = Life {
            polls: u32::MAX, policy: FsyncPolicy::Always, segment_max: 1 << 20, ops: vec![], rewrites: vec![],
            killed: true, names_kept: true, fates: vec![],
        };
        for life in lives.iter().chain([&last]) {
            let finished = run(&world.clock, crash_after(life.polls, live(&world, life, &history, &number)));
            finished.unwrap_or(Ok(()))?;
            prop_assert_eq!(world.disk.faults.borrow().unreserved_writes, 0);
            if life.killed {
                // What the page cache holds is all there; but the next start may find any of it un-synced no more.
                continue;
            }
            let mut fates = life.fates.iter().cycle();
            let disk: TestDisk = world.disk.after_power_loss(life.names_kept, || *fates.next().expect("endless"));
            world = TestWorld::with_disk(disk);
        }
    }
}
