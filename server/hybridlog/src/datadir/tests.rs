//! The data directory as a start finds it: torn, damaged, incomplete, foreign, in use.

use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::{NamedCheckpoint, OpenError, Recover, recover_data_dir};
use crate::aof::testing::{TestWorld, run};
use crate::aof::tests::{command, effect, open, process, segment};
use crate::aof::{Effect, FsyncPolicy};
use crate::checkpoint::LoadError;

fn manifest() -> PathBuf {
    "data/MANIFEST".into()
}

/// What a start finds, and what stops it.
fn start(world: &TestWorld) -> Result<Vec<Vec<u8>>, OpenError> {
    run(&world.clock, open(world, FsyncPolicy::Always)).map(|(_, seen)| seen)
}

fn error(world: &TestWorld) -> String {
    start(world).expect_err("must not start").to_string()
}

/// A machine whose server wrote these frames and was killed; each frame in a group of its own if `synced`.
fn written(frames: &[Vec<u8>], synced: bool) -> TestWorld {
    let world = TestWorld::default();
    let policy = if synced { FsyncPolicy::Always } else { FsyncPolicy::No };
    process(&world, policy, async |aof, _| {
        for effects in frames {
            let position = command(&aof, effects).await.expect("space");
            if synced {
                aof.wait_durable(position).await.expect("durable");
            }
        }
        ferrite_io::Clock::sleep(&world.clock, std::time::Duration::from_millis(5)).await;
    });
    world
}

/// The same machine with another content of the segment.
fn with_segment(world: &TestWorld, bytes: &[u8]) -> TestWorld {
    let copy = TestWorld::default();
    copy.disk.put(&manifest(), &world.disk.bytes(&manifest()));
    copy.disk.put(&segment(), bytes);
    copy
}

fn change_manifest(world: &TestWorld, change: impl FnOnce(&mut Manifest)) {
    let mut read = Manifest::decode(&world.disk.bytes(&manifest())).expect("intact");
    change(&mut read);
    world.disk.put(&manifest(), read.encode().as_bytes());
}

fn frames(sizes: &[usize]) -> Vec<Vec<u8>> {
    sizes.iter().enumerate().map(|(number, &size)| effect(number as u32, size)).collect()
}

#[test]
fn a_first_start_is_empty_and_a_second_finds_the_same() {
    let world = TestWorld::default();
    assert_eq!(start(&world).expect("starts"), Vec::<Vec<u8>>::new());
    let before = (world.disk.bytes(&manifest()), world.disk.bytes(&segment()));
    assert_eq!(start(&world).expect("starts"), Vec::<Vec<u8>>::new());
    assert_eq!((world.disk.bytes(&manifest()), world.disk.bytes(&segment())), before);
}

#[test]
fn a_tail_cut_at_any_byte_keeps_whole_frames_and_goes_on() {
    let sent = frames(&[10, 600, 0, 33]);
    let world = written(&sent, false);
    let bytes = world.disk.bytes(&segment());
    // No sync, so all frames follow the first mark without a gap.
    let ends: Vec<usize> = sent
        .iter()
        .scan(512 + 24, |end, effects| {
            *end += 24 + effects.len();
            Some(*end)
        })
        .collect();
    let end = *ends.last().expect("frames");
    for cut in 512..=end {
        let kept = ends.iter().filter(|&&end| end <= cut).count();
        let zeroed = [&bytes[..cut], &vec![0; bytes.len() - cut]].concat();
        for torn in [&bytes[..cut], &zeroed] {
            let copy = with_segment(&world, torn);
            assert_eq!(start(&copy).expect("starts"), sent[..kept], "cut at {cut}");
        }
        if cut % 7 == 0 {
            let copy = with_segment(&world, &zeroed);
            process(&copy, FsyncPolicy::Always, async |aof, _| {
                command(&aof, &effect(99, 20)).await.expect("space");
                aof.close().await.expect("closes");
            });
            assert_eq!(start(&copy).expect("starts"), [&sent[..kept], &[effect(99, 20)]].concat());
        }
    }
}

#[test]
fn an_exec_is_replayed_whole_or_not_at_all() {
    let group: Vec<u8> = frames(&[5, 5, 5]).concat();
    let world = written(&[effect(9, 1), group], false);
    let bytes = world.disk.bytes(&segment());
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("written") + 1;
    let counts: Vec<usize> =
        (600..=end + 1).map(|cut| start(&with_segment(&world, &bytes[..cut])).expect("starts").len()).collect();
    assert!(counts.iter().all(|&count| count == 1 || count == 4), "{counts:?}");
    assert_eq!((counts[0], counts.last()), (1, Some(&4)));
}

#[test]
fn a_flipped_bit_is_corruption_below_the_durable_mark_and_a_torn_tail_above() {
    let sent = frames(&[10, 700, 100, 40, 5]);
    let world = written(&sent, true);
    let bytes = world.disk.bytes(&segment());
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("written") + 1;
    let (mut corrupt, mut cut, mut harmless) = (0, 0, 0);
    for at in 512..end {
        for bit in [0, 5] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            match start(&with_segment(&world, &damaged)) {
                // The last group has no mark behind it yet: the one frame in it may be cut.
                Ok(seen) if seen.len() == 4 => {
                    assert_eq!(seen, sent[..4], "byte {at}");
                    cut += 1;
                }
                Ok(seen) => {
                    assert_eq!(seen, sent, "byte {at}");
                    harmless += 1;
                }
                Err(OpenError::Corrupt { path, offset, position, durable }) => {
                    assert_eq!(path, segment());
                    assert!(offset <= at as u64 && position < durable, "byte {at}: {offset}");
                    corrupt += 1;
                }
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
    }
    assert!(corrupt > 1700 && cut > 20 && harmless > 500, "{corrupt} {cut} {harmless}");
}

#[test]
fn after_a_clean_stop_any_damage_and_any_cut_is_noticed() {
    let sent = frames(&[10, 700, 100]);
    let world = TestWorld::default();
    process(&world, FsyncPolicy::No, async |aof, _| {
        for effects in &sent {
            command(&aof, effects).await.expect("space");
        }
        aof.close().await.expect("closes");
    });
    let bytes = world.disk.bytes(&segment());
    for at in 512..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        match start(&with_segment(&world, &damaged)) {
            Ok(seen) => assert_eq!(seen, sent, "byte {at}"),
            Err(error) => assert!(matches!(error, OpenError::Corrupt { .. }), "byte {at}: {error}"),
        }
    }
    // The start notes in the manifest what it replayed, so that even a cut at a frame's end is noticed.
    start(&world).expect("starts");
    let message = error(&with_segment(&world, &bytes[..700]));
    assert!(message.contains("data/appendonly-1.aof is damaged at offset 5"), "{message}");
    assert_eq!(Manifest::decode(&world.disk.bytes(&manifest())).expect("intact").durable, 24 * 3 + 10 + 700 + 100 + 28);
}

#[test]
fn a_value_cannot_pass_for_a_frame() {
    // A client stores what a mark and a frame look like in another segment, at every offset of a sector.
    let other = written(&frames(&[3]), true).disk.bytes(&segment());
    let forged = &other[512..600];
    let mut segment_bytes = written(&[forged.repeat(30)], false);
    let mut bytes = segment_bytes.disk.bytes(&segment());
    // Another salt, as every other segment has.
    bytes[24] ^= 1;
    let crc = crc32c::crc32c(&bytes[16..512]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    segment_bytes = with_segment(&segment_bytes, &bytes);
    change_manifest(&segment_bytes, |manifest| manifest.segments[0].salt ^= 1);
    assert_eq!(start(&segment_bytes).expect("starts"), Vec::<Vec<u8>>::new());
}

#[test]
fn what_to_do_follows_from_what_failed() {
    let error = |source: std::io::Error| OpenError::Io { action: "read", path: manifest(), source }.to_string();
    let eio = error(std::io::Error::from_raw_os_error(5));
    assert!(eio.starts_with("cannot read data/MANIFEST: Input/output error (os error 5). The disk"), "{eio}");
    assert!(!eio.contains("user") && !eio.contains("path"), "{eio}");
    for (kind, hint) in [
        (std::io::ErrorKind::NotFound, "Check that the path is right"),
        (std::io::ErrorKind::PermissionDenied, "Check that this user may read and write there"),
        (std::io::ErrorKind::ReadOnlyFilesystem, "Mount the file system for writing, or choose another directory"),
        (std::io::ErrorKind::StorageFull, "Free disk space or raise the quota, then start again"),
    ] {
        assert!(error(kind.into()).ends_with(hint), "{kind}");
    }
}

#[test]
fn a_second_server_is_refused_until_the_first_is_gone() {
    let world = TestWorld::default();
    let first = run(&world.clock, open(&world, FsyncPolicy::Always)).expect("starts");
    assert_eq!(
        error(&world),
        "the data directory data is in use by another server: stop it, or choose another directory"
    );
    drop(first);
    start(&world).expect("starts");
}

#[test]
fn data_without_a_manifest_is_not_started_over() {
    let world = written(&frames(&[1]), false);
    world.disk.delete(&manifest());
    let before = world.disk.bytes(&segment());
    let message = error(&world);
    assert!(message.contains("data holds data (appendonly-1.aof) but no MANIFEST"), "{message}");
    assert_eq!(world.disk.bytes(&segment()), before);
    let world = TestWorld::default();
    world.disk.put(Path::new("data/hybrid.log"), b"");
    assert!(error(&world).contains("(hybrid.log)"));
}

#[test]
fn the_rest_of_an_interrupted_first_start_is_no_data() {
    let world = TestWorld::default();
    world.disk.put(&segment(), &[7; 512]);
    world.disk.put(Path::new("data/MANIFEST.new"), b"ferrite-man");
    assert_eq!(start(&world).expect("starts"), Vec::<Vec<u8>>::new());
    assert!(!world.disk.exists(Path::new("data/MANIFEST.new")));
}

#[test]
fn an_unusable_manifest_stops_the_start() {
    let world = written(&frames(&[1]), false);
    let good = world.disk.bytes(&manifest());
    for (bytes, expected) in [
        (&b""[..], "it does not begin with `ferrite-manifest`"),
        (&good[..good.len() - 1], "checksum"),
        (b"ferrite-manifest 9\n", "it has format version 9 and this server reads version 3"),
    ] {
        world.disk.put(&manifest(), bytes);
        let message = error(&world);
        assert!(message.contains("the manifest data/MANIFEST") && message.contains(expected), "{message}");
    }
    world.disk.put(&manifest(), &good);
    assert_eq!(start(&world).expect("starts").len(), 1);
}

#[test]
fn an_unusable_segment_stops_the_start() {
    let world = written(&frames(&[1]), false);
    let bytes = world.disk.bytes(&segment());
    let mut newer = bytes.clone();
    newer[8] = 2;
    for (content, expected) in [
        (&bytes[..100], "its header is damaged"),
        (&[&b"REDIS0011"[..], &bytes].concat(), "does not begin as an append-only file of Ferrite"),
        (&newer, "it has format version 2 and this server reads version 1"),
    ] {
        let message = error(&with_segment(&world, content));
        assert!(message.contains("data/appendonly-1.aof") && message.contains(expected), "{message}");
    }
    world.disk.delete(&segment());
    assert!(error(&world).contains("data/appendonly-1.aof is missing"));
    assert!(!world.disk.exists(&segment()), "a missing file is not made anew");
}

#[test]
fn a_directory_with_a_log_is_not_used_without_it() {
    let world = written(&frames(&[1]), false);
    let config = super::DataDirConfig { aof: false, ..super::DataDirConfig::new("data") };
    let refused = run(&world.clock, super::open_data_dir(&world, &config, async |_| Ok::<(), String>(())));
    assert!(matches!(refused, Err(OpenError::AofDisabled(_))));
    let fresh = TestWorld::default();
    let opened = run(&fresh.clock, super::open_data_dir(&fresh, &config, async |_| Ok::<(), String>(())));
    assert!(opened.expect("starts").aof.is_none());
    assert_eq!(start(&fresh).expect("a log may be added later"), Vec::<Vec<u8>>::new());
}

#[test]
fn an_effect_that_cannot_be_applied_stops_the_start() {
    let world = written(&frames(&[1, 2]), false);
    let config = super::DataDirConfig::new("data");
    let stopped = run(&world.clock, super::open_data_dir(&world, &config, async |_| Err("no memory".to_owned())));
    let message = stopped.err().expect("stopped").to_string();
    assert_eq!(message, "replaying the append-only file data/appendonly-1.aof stopped at offset 536: no memory");
}

/// Takes effects as they come.
#[derive(Default)]
struct Batches {
    seen: Vec<usize>,
    /// Cannot apply the effect of this index.
    refused: Option<usize>,
}

impl Recover for Batches {
    type Error = &'static str;

    async fn restore(&mut self, _: &NamedCheckpoint) -> Result<Result<(), LoadError>, &'static str> {
        Err("there is none")
    }

    async fn keep(&mut self, _: &NamedCheckpoint) -> Result<Result<(), LoadError>, &'static str> {
        Err("there is none")
    }

    async fn apply(&mut self, effects: &[Effect<'_>]) -> Result<(), (usize, &'static str)> {
        let before = self.seen.iter().sum::<usize>();
        self.seen.push(effects.len());
        match self.refused.and_then(|refused| refused.checked_sub(before)).filter(|&at| at < effects.len()) {
            Some(at) => Err((at, "no memory")),
            None => Ok(()),
        }
    }
}

#[test]
fn effects_come_many_at_a_time_and_an_error_names_the_frame_of_its_effect() {
    let sent = frames(&[1; 2000]);
    let transaction = sent[..5].concat();
    let world = written(&[vec![transaction], sent].concat(), false);
    let config = super::DataDirConfig { read_len: 16 << 10, ..super::DataDirConfig::new("data") };
    let replayed = |refused| {
        let mut batches = Batches { refused, ..Batches::default() };
        let result = run(&world.clock, recover_data_dir(&world, &config, &mut batches)).map(|found| found.summary);
        (result.map_err(|error| error.to_string()), batches.seen)
    };
    let (summary, seen) = replayed(None);
    let summary = summary.expect("starts");
    assert_eq!((summary.frames, summary.effects, seen.iter().sum()), (2001, 2005, 2005));
    assert!(seen.len() < 40, "{seen:?}");
    let payload = effect(0, 1).len();
    let (first, len) = (512 + 24, 24 + payload);
    let second = first + 24 + 5 * payload;
    for (refused, offset) in [(0, first), (4, first), (5, second), (1500, second + 1495 * len)] {
        let message = replayed(Some(refused)).0.expect_err("stops");
        assert_eq!(
            message,
            format!("replaying the append-only file data/appendonly-1.aof stopped at offset {offset}: no memory")
        );
    }
}

#[test]
fn what_the_manifest_says_was_durable_must_be_there() {
    let world = TestWorld::default();
    start(&world).expect("starts");
    change_manifest(&world, |manifest| manifest.durable = 1);
    assert!(matches!(start(&world), Err(OpenError::Corrupt { offset: 512, position: 0, durable: 1, .. })));
}
