//! The log while a server runs: policies, space, failures, and power loss at any moment.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ferrite_io::Clock;
use proptest::prelude::*;

use super::testing::{Fate, TestWorld, run, run_with};
use super::{Aof, AofFailed, Effect, FsyncPolicy, NoSpace, SyncTimes, aof_task};
use crate::datadir::{DataDirConfig, OpenError, Recovered, RecoveredAof, Summary, open_data_dir};
use crate::space::{NeedReason, NeedSpace};

pub(crate) fn config(policy: FsyncPolicy) -> DataDirConfig {
    DataDirConfig { policy, allocate_min: 1024, allocate_max: 4096, read_len: 4096, ..DataDirConfig::new("data") }
}

pub(crate) fn segment() -> PathBuf {
    "data/appendonly-1.aof".into()
}

/// An effect that can be told from all others, of about `len` bytes.
pub(crate) fn effect(number: u32, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let value = vec![number as u8 | 1; len];
    Effect::Set { db: 0, key: &number.to_le_bytes(), value: &value, expire_at_ms: 1 }.encode_into(&mut out);
    out
}

pub(crate) async fn open(
    world: &TestWorld,
    policy: FsyncPolicy,
) -> Result<(Recovered<TestWorld>, Vec<Vec<u8>>), OpenError> {
    let mut seen = Vec::new();
    let recovered = open_data_dir(world, &config(policy), async |effect| {
        let mut bytes = Vec::new();
        effect.encode_into(&mut bytes);
        seen.push(bytes);
        Ok::<(), OpenError>(())
    })
    .await?;
    Ok((recovered, seen))
}

/// Opens the directory, runs `body` with the log and its task, and drops everything: as a killed process does.
pub(crate) fn process<T, R: Future<Output = T>>(
    world: &TestWorld,
    policy: FsyncPolicy,
    body: impl FnOnce(Arc<Aof>, Vec<Vec<u8>>) -> R,
) -> T {
    process_observed(world, policy, |_| {}, body)
}

fn process_observed<T, R: Future<Output = T>>(
    world: &TestWorld,
    policy: FsyncPolicy,
    on_sync: impl FnMut(SyncTimes) + 'static,
    body: impl FnOnce(Arc<Aof>, Vec<Vec<u8>>) -> R,
) -> T {
    let (mut recovered, seen) = run(&world.clock, open(world, policy)).expect("opens");
    let RecoveredAof { shared: aof, file, .. } = recovered.aof.take().expect("with a log");
    let task = aof_task(aof.clone(), world.clone(), file, on_sync);
    let result = run_with(&world.clock, body(aof, seen), task);
    assert_eq!(world.disk.faults.borrow().unreserved_writes, 0);
    result
}

/// One command: reserve, append, release; waits for space as a session does.
pub(crate) async fn command(aof: &Aof, effects: &[u8]) -> Result<u64, NoSpace> {
    while aof.reserve(effects.len()).is_err() {
        aof.wait_for_space(effects.len()).await?;
    }
    let position = aof.append(effects);
    aof.release(effects.len());
    Ok(position)
}

fn replayed(world: &TestWorld) -> (Vec<Vec<u8>>, Summary) {
    let (recovered, seen) = run(&world.clock, open(world, FsyncPolicy::Always)).expect("opens");
    (seen, recovered.summary)
}

#[test]
fn what_was_appended_is_replayed_in_order() {
    let world = TestWorld::default();
    let sent: Vec<_> = (0..40).map(|number| effect(number, 50 * number as usize)).collect();
    for half in [&sent[..20], &sent[20..]] {
        process(&world, FsyncPolicy::EverySec, async |aof, _| {
            for effects in half {
                command(&aof, effects).await.expect("space");
            }
            aof.close().await.expect("closes");
            assert_eq!(aof.durable(), aof.position());
        });
    }
    let (seen, summary) = replayed(&world);
    assert_eq!(seen, sent);
    assert_eq!((summary.frames, summary.effects, summary.torn), (40, 40, 0));
}

#[test]
fn an_empty_command_appends_nothing() {
    let world = TestWorld::default();
    process(&world, FsyncPolicy::Always, async |aof, _| {
        assert_eq!(command(&aof, b"").await.expect("space"), 0);
        aof.wait_durable(0).await.expect("nothing to wait for");
    });
}

#[test]
fn always_waits_for_the_sync_and_groups_commits() {
    let world = TestWorld::default();
    let syncs = Rc::new(RefCell::new(Vec::new()));
    let observed = syncs.clone();
    process_observed(
        &world,
        FsyncPolicy::Always,
        move |times| observed.borrow_mut().push(times),
        async |aof, _| {
            aof.wait_for_space(10_000).await.expect("space");
            for number in 0..10 {
                let effects = effect(number, 10);
                aof.reserve(effects.len()).expect("space");
                aof.append(&effects);
                aof.release(effects.len());
            }
            assert_eq!(aof.durable(), 0);
            aof.wait_durable(aof.position()).await.expect("durable");
            assert_eq!(aof.last_sync(), *syncs.borrow().last().expect("synced"));
        },
    );
    assert_eq!(syncs.borrow().len(), 1, "ten commands, one sync");
}

#[test]
fn everysec_syncs_within_a_second() {
    let world = TestWorld::default();
    process(&world, FsyncPolicy::EverySec, async |aof, _| {
        let position = command(&aof, &effect(1, 10)).await.expect("space");
        let start_ns = world.clock.monotonic_ns();
        world.clock.sleep(Duration::from_millis(500)).await;
        assert_eq!(aof.durable(), 0);
        aof.wait_durable(position).await.expect("durable");
        assert!(world.clock.monotonic_ns() - start_ns <= 1_000_000_000);
    });
}

#[test]
fn a_new_policy_holds_at_once() {
    let world = TestWorld::default();
    process(&world, FsyncPolicy::No, async |aof, _| {
        let position = command(&aof, &effect(1, 10)).await.expect("space");
        world.clock.sleep(Duration::from_secs(100)).await;
        assert_eq!((aof.durable(), aof.policy()), (0, FsyncPolicy::No));
        let start_ns = world.clock.monotonic_ns();
        aof.set_policy(FsyncPolicy::Always);
        aof.wait_durable(position).await.expect("durable");
        assert_eq!(world.clock.monotonic_ns(), start_ns);
    });
}

#[test]
fn a_full_disk_refuses_before_and_recovers_after() {
    let world = TestWorld::default();
    process(&world, FsyncPolicy::Always, async |aof, _| {
        world.disk.faults.borrow_mut().free = Some(5000);
        let mut sent = 0;
        let refused = loop {
            match command(&aof, &effect(sent, 300)).await {
                Ok(_) => sent += 1,
                Err(refused) => break refused,
            }
        };
        assert!(sent >= 3, "{sent}");
        let message = refused.to_string();
        assert!(message.contains("data/appendonly-1.aof") && message.contains("free disk space"), "{message}");
        assert_eq!(aof.reserve(300), Err(NeedSpace { reason: NeedReason::AofFile, bytes: 300 }));
        aof.wait_durable(aof.position()).await.expect("what was accepted is written");
        world.disk.faults.borrow_mut().free = None;
        command(&aof, &effect(sent, 300)).await.expect("there is space again");
        aof.close().await.expect("closes");
    });
    let (seen, _) = replayed(&world);
    assert_eq!(seen, (0..seen.len() as u32).map(|number| effect(number, 300)).collect::<Vec<_>>());
}

#[test]
fn a_disk_filled_group_by_group_is_never_overrun() {
    let world = TestWorld::default();
    world.disk.faults.borrow_mut().free = Some(200_000);
    process(&world, FsyncPolicy::Always, async |aof, _| {
        let mut sent = 0;
        while let Ok(position) = command(&aof, &effect(sent, sent as usize % 90)).await {
            sent += 1;
            if sent % 3 != 0 {
                aof.wait_durable(position).await.expect("durable");
            }
            if sent % 10 == 0 {
                world.clock.sleep(Duration::from_millis(20)).await;
            }
        }
        // A group takes a sector, or two where its frame crosses one.
        assert!(sent > 250, "{sent}");
        aof.close().await.expect("closes");
        assert_eq!(aof.durable(), aof.position());
    });
}

#[test]
fn released_space_can_be_reserved_again() {
    let world = TestWorld::default();
    process(&world, FsyncPolicy::No, async |aof, _| {
        command(&aof, &effect(0, 1)).await.expect("space");
        world.clock.sleep(Duration::from_secs(1)).await;
        world.disk.faults.borrow_mut().free = Some(0);
        let before = aof.space();
        for _ in 0..1000 {
            assert_eq!(aof.reserve(100), Ok(()));
            aof.release(100);
        }
        assert_eq!(aof.space(), before);
    });
}

fn fails(break_disk: impl FnOnce(&TestWorld), action: &str) {
    let world = TestWorld::default();
    process(&world, FsyncPolicy::Always, async |aof, _| {
        let first = command(&aof, &effect(0, 10)).await.expect("space");
        aof.wait_durable(first).await.expect("durable");
        break_disk(&world);
        let position = command(&aof, &effect(1, 10)).await.expect("space");
        let failed: AofFailed = aof.wait_durable(position).await.expect_err("not durable");
        assert!(
            failed.to_string().contains(action) && failed.to_string().contains("data/appendonly-1.aof"),
            "{failed}"
        );
        assert_eq!(aof.failed().await.to_string(), failed.to_string());
        assert_eq!(aof.durable(), first);
        assert!(matches!(aof.wait_for_space(1).await, Err(NoSpace::Failed(_))));
        assert!(aof.close().await.is_err());
        aof.wait_durable(first).await.expect("what was durable stays so");
    });
}

#[test]
fn a_failed_sync_reaches_every_waiter() {
    fails(|world| world.disk.faults.borrow_mut().fail_sync = true, "synced");
}

#[test]
fn a_failed_write_reaches_every_waiter() {
    fails(|world| world.disk.faults.borrow_mut().fail_write = true, "written at offset");
}

#[test]
fn waiters_learn_that_the_task_is_gone() {
    let world = TestWorld::default();
    let (recovered, _) = run(&world.clock, open(&world, FsyncPolicy::Always)).expect("opens");
    let RecoveredAof { shared: aof, file, .. } = recovered.aof.expect("with a log");
    {
        let mut task = pin!(aof_task(aof.clone(), world.clone(), file, |_| {}));
        run(&world.clock, crash_after(3, task.as_mut()));
    }
    assert!(run(&world.clock, aof.wait_durable(1)).is_err());
}

#[test]
fn a_mark_follows_an_idle_sync() {
    let world = TestWorld::default();
    process(&world, FsyncPolicy::Always, async |aof, _| {
        let position = command(&aof, &effect(0, 10)).await.expect("space");
        aof.wait_durable(position).await.expect("durable");
        world.clock.sleep(Duration::from_millis(50)).await;
    });
    // The only frame begins right behind the first mark; without the second mark this would be a torn tail.
    let mut bytes = world.disk.bytes(&segment());
    bytes[512 + 24 + 30] ^= 1;
    world.disk.put(&segment(), &bytes);
    let result = run(&world.clock, open(&world, FsyncPolicy::Always));
    assert!(matches!(result, Err(OpenError::Corrupt { offset: 536, position: 0, .. })));
}

#[test]
fn what_a_start_has_read_is_durable() {
    let world = TestWorld::default();
    process(&world, FsyncPolicy::No, async |aof, _| {
        command(&aof, &effect(1, 10)).await.expect("space");
        world.clock.sleep(Duration::from_secs(1)).await;
    });
    // The process was killed: the frame is in the page cache alone. Clients of the next one may read it.
    assert_eq!(replayed(&world).0, [effect(1, 10)]);
    let disk = world.disk.after_power_loss(true, || Fate::Lost);
    assert_eq!(replayed(&TestWorld::with_disk(disk)).0, [effect(1, 10)]);
}

/// Stops a future after it was polled so many times: a crash at any I/O.
pub(crate) async fn crash_after<T>(polls: u32, body: impl Future<Output = T>) -> Option<T> {
    let mut body = pin!(body);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        body.as_mut().poll(context).map(Some)
    })
    .await
}

#[derive(Clone, Debug)]
struct Life {
    polls: u32,
    sizes: Vec<usize>,
    /// Ends with the process alone: nothing is lost, and nothing becomes durable.
    killed: bool,
    names_kept: bool,
    fates: Vec<Fate>,
}

fn life() -> impl Strategy<Value = Life> {
    let fate = prop_oneof![Just(Fate::Kept), Just(Fate::Lost), Just(Fate::Garbage)];
    (
        0u32..400,
        // Often the same, so that what was cut off would fit behind what is written in its place.
        prop::collection::vec(prop_oneof![3 => Just(20), 2 => Just(470), 1 => 0usize..3000], 0..12),
        (any::<bool>(), any::<bool>()),
        prop::collection::vec(fate, 1..8),
    )
        .prop_map(|(polls, sizes, (killed, names_kept), fates)| Life { polls, sizes, killed, names_kept, fates })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Power is lost at any I/O, also during the first start and during recovery, again and again.
    #[test]
    fn always_loses_nothing_acknowledged_and_brings_nothing_back(lives in prop::collection::vec(life(), 1..6)) {
        let mut world = TestWorld::default();
        // What may be in the log, in order, and how many of it must be.
        let appended = RefCell::new(Vec::new());
        let acknowledged = RefCell::new(0);
        let mut number = 0;
        let last = Life { polls: u32::MAX, sizes: vec![], killed: true, names_kept: true, fates: vec![Fate::Kept] };
        for life in lives.iter().chain([&last]) {
            let finished = run(&world.clock, crash_after(life.polls, async {
                let (recovered, seen) = open(&world, FsyncPolicy::Always).await.expect("a power loss is no corruption");
                let RecoveredAof { shared: aof, file, .. } = recovered.aof.expect("with a log");
                assert!(seen.len() >= *acknowledged.borrow(), "{} of {} acknowledged", seen.len(), acknowledged.borrow());
                assert_eq!(seen, appended.borrow()[..seen.len()]);
                *acknowledged.borrow_mut() = seen.len();
                *appended.borrow_mut() = seen;
                let mut task = pin!(aof_task(aof.clone(), world.clone(), file, |_| {}));
                let mut session = pin!(async {
                    for (index, &size) in life.sizes.iter().enumerate() {
                        number += 1;
                        let effects = effect(number, size);
                        while aof.reserve(effects.len()).is_err() {
                            aof.wait_for_space(effects.len()).await.expect("space");
                        }
                        appended.borrow_mut().push(effects.clone());
                        let position = aof.append(&effects);
                        aof.release(effects.len());
                        if index % 3 != 2 {
                            aof.wait_durable(position).await.expect("durable");
                            *acknowledged.borrow_mut() = appended.borrow().len();
                        }
                    }
                });
                poll_fn(|context| {
                    let done = session.as_mut().poll(context);
                    assert!(task.as_mut().poll(context).is_pending());
                    done
                }).await;
            }));
            prop_assert!(finished.is_some() || life.polls != u32::MAX);
            prop_assert_eq!(world.disk.faults.borrow().unreserved_writes, 0);
            if life.killed {
                continue;
            }
            let mut fates = life.fates.iter().cycle();
            let disk = world.disk.after_power_loss(life.names_kept, || *fates.next().expect("endless"));
            world = TestWorld::with_disk(disk);
        }
        let (seen, _) = replayed(&world);
        prop_assert_eq!(seen.len(), appended.borrow().len());
    }
}
