//! The disk on the real kernel: one suite, run on both backends.

// Prepares and inspects the files that the World's disk works on.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use ferrite_io::{AlignedBuf, BLOCK, Disk, File, OpenMode, World};
use ferrite_io_real::{DiskChoice, RealDisk, RealWorld, Runtime};

/// Runs `test` on both backends, each in its own directory.
fn on_both<F, Fut>(test: F)
where
    F: Fn(RealWorld, PathBuf) -> Fut,
    Fut: Future<Output = ()>,
{
    for (choice, name) in [(DiskChoice::IoUring, "io_uring"), (DiskChoice::IoThreads, "io-threads")] {
        // Not /tmp, which may be memory: direct reads are meant to be direct.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let runtime = Runtime::new(choice).expect("these tests need io_uring (a seccomp profile may forbid it)");
        runtime
            .block_on(|world| {
                assert_eq!(world.disk().backend(), name);
                test(world, dir.path().to_owned())
            })
            .unwrap();
    }
}

/// Bytes that differ from block to block and from seed to seed.
fn pattern(seed: u64, len: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(len);
    for (n, word) in buf.chunks_mut(8).enumerate() {
        let mixed = (seed << 32 | n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        word.copy_from_slice(&mixed[..word.len()]);
    }
    buf
}

async fn open(disk: &RealDisk, path: &Path, mode: OpenMode) -> <RealDisk as Disk>::File {
    disk.open(path, mode).await.unwrap()
}

#[test]
fn what_was_written_is_read_back_in_every_mode() {
    on_both(async |world, dir| {
        for mode in [OpenMode::Device, OpenMode::Sequential] {
            let path = dir.join(format!("{mode:?}"));
            let file = open(world.disk(), &path, mode).await;
            let written = file.write_at(pattern(1, 3 * BLOCK), BLOCK as u64).await;
            assert_eq!(written.result.unwrap(), 3 * BLOCK);
            let read = file.read_at(AlignedBuf::zeroed(2 * BLOCK), 2 * BLOCK as u64).await;
            assert_eq!(read.result.unwrap(), 2 * BLOCK);
            assert_eq!(read.buf[..], pattern(1, 3 * BLOCK)[BLOCK..]);
            assert_ne!(written.id, read.id);
            let again = open(world.disk(), &path, OpenMode::ReadOnly).await;
            let read = again.read_at(AlignedBuf::zeroed(5), BLOCK as u64 + 1).await;
            assert_eq!(read.buf[..], pattern(1, BLOCK)[1..6]);
            assert!(again.write_at(pattern(1, BLOCK), 0).await.result.is_err());
        }
    });
}

#[test]
fn a_read_past_the_end_is_short() {
    on_both(async |world, dir| {
        for mode in [OpenMode::Device, OpenMode::Sequential] {
            let file = open(world.disk(), &dir.join(format!("{mode:?}")), mode).await;
            file.write_at(pattern(2, BLOCK + 100), 0).await.result.unwrap();
            let read = file.read_at(AlignedBuf::zeroed(4 * BLOCK), 0).await;
            assert_eq!(read.result.unwrap(), BLOCK + 100);
            assert_eq!(read.buf.len(), 4 * BLOCK);
            assert_eq!(read.buf[..BLOCK + 100], pattern(2, BLOCK + 100)[..]);
            let beyond = file.read_at(AlignedBuf::zeroed(BLOCK), 64 * BLOCK as u64).await;
            assert_eq!(beyond.result.unwrap(), 0);
        }
    });
}

#[test]
fn a_map_shows_the_file_and_never_its_outside() {
    on_both(async |world, dir| {
        let file = open(world.disk(), &dir.join("log"), OpenMode::Device).await;
        file.write_at(pattern(3, 4 * BLOCK), 0).await.result.unwrap();
        let map = file.map(BLOCK as u64, 2 * BLOCK).await.unwrap();
        assert_eq!(map.as_ref()[..], pattern(3, 4 * BLOCK)[BLOCK..3 * BLOCK]);
        assert_eq!(map.is_copy(), world.disk().map_copies());
        drop(map);
        file.drop_cache(BLOCK as u64, 2 * BLOCK as u64);
        let past_the_end = [(0, 5 * BLOCK), (4 * BLOCK, BLOCK), (1 << 40, BLOCK)];
        for (offset, len) in past_the_end {
            assert_eq!(file.map(offset as u64, len).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        for (offset, len) in [(1, BLOCK), (0, 100), (0, 0)] {
            assert_eq!(file.map(offset, len).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        // A partial last block is no whole block of the file.
        file.set_len(3 * BLOCK as u64 + 1).await.unwrap();
        assert_eq!(file.map(3 * BLOCK as u64, BLOCK).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert!(file.map(0, 3 * BLOCK).await.is_ok());
    });
}

#[test]
fn allocation_extends_with_zeros_and_keeps_what_is_there() {
    on_both(async |world, dir| {
        for mode in [OpenMode::Device, OpenMode::Sequential] {
            let file = open(world.disk(), &dir.join(format!("{mode:?}")), mode).await;
            file.write_at(pattern(4, BLOCK), 0).await.result.unwrap();
            file.allocate(0, 1 << 20).await.unwrap();
            assert_eq!(file.len().await.unwrap(), 1 << 20);
            let read = file.read_at(AlignedBuf::zeroed(2 * BLOCK), 0).await;
            assert_eq!(read.buf[..BLOCK], pattern(4, BLOCK)[..]);
            assert!(read.buf[BLOCK..].iter().all(|byte| *byte == 0));
            file.sync().await.unwrap();
            file.set_len(10).await.unwrap();
            assert_eq!(file.len().await.unwrap(), 10);
        }
    });
}

#[test]
fn a_hole_reads_as_zeros_and_takes_no_space() {
    use std::os::unix::fs::MetadataExt;
    on_both(async |world, dir| {
        for mode in [OpenMode::Device, OpenMode::Sequential] {
            let path = dir.join(format!("{mode:?}"));
            let file = open(world.disk(), &path, mode).await;
            let len = 256 * BLOCK;
            file.write_at(pattern(5, len), 0).await.result.unwrap();
            file.sync().await.unwrap();
            let blocks = std::fs::metadata(&path).unwrap().blocks();
            file.punch(BLOCK as u64, 250 * BLOCK as u64).await.unwrap();
            file.sync().await.unwrap();
            assert_eq!(file.len().await.unwrap(), len as u64, "the length stays");
            let read = file.read_at(AlignedBuf::zeroed(len), 0).await;
            assert_eq!(read.buf[..BLOCK], pattern(5, len)[..BLOCK]);
            assert!(read.buf[BLOCK..251 * BLOCK].iter().all(|byte| *byte == 0));
            assert_eq!(read.buf[251 * BLOCK..], pattern(5, len)[251 * BLOCK..]);
            let after = std::fs::metadata(&path).unwrap().blocks();
            assert!(after + 240 * BLOCK as u64 / 512 <= blocks, "{blocks} blocks before, {after} after");
        }
    });
}

#[test]
fn names_are_listed_renamed_and_removed() {
    on_both(async |world, dir| {
        let disk = world.disk();
        let data = dir.join("a/b");
        disk.create_dir_all(&data).await.unwrap();
        disk.create_dir_all(&data).await.unwrap();
        disk.create_dir_all(&data.join("folder")).await.unwrap();
        for name in ["two", "one", "three"] {
            open(disk, &data.join(name), OpenMode::Sequential).await;
        }
        assert_eq!(disk.list(&data).await.unwrap(), ["one", "three", "two"]);
        disk.rename(&data.join("two"), &data.join("four")).await.unwrap();
        disk.remove(&data.join("one")).await.unwrap();
        disk.sync_dir(&data).await.unwrap();
        assert_eq!(disk.list(&data).await.unwrap(), ["four", "three"]);
        assert_eq!(disk.remove(&data.join("one")).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.list(&data.join("none")).await.unwrap_err().kind(), ErrorKind::NotFound);
        let missing = disk.open(&data.join("one"), OpenMode::ReadOnly).await;
        assert_eq!(missing.map(drop).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_directory_is_locked_once() {
    on_both(async |world, dir| {
        let path = dir.join("LOCK");
        let held = world.disk().lock(&path).unwrap();
        assert_eq!(world.disk().lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(held);
        world.disk().lock(&path).unwrap();
    });
}

#[test]
fn two_hundred_reads_at_once_each_fill_their_own_buffer() {
    const READS: u64 = 200;
    on_both(async |world, dir| {
        let file = open(world.disk(), &dir.join("log"), OpenMode::Device).await;
        for n in 0..READS {
            file.write_at(pattern(n, BLOCK), n * BLOCK as u64).await.result.unwrap();
        }
        // Twice as many operations as the ring has slots, so that some wait for one.
        let rounds = 3;
        let pending = Rc::new(Cell::new(READS * rounds));
        let ids = Rc::new(std::cell::RefCell::new(BTreeSet::new()));
        for n in 0..READS * rounds {
            let (file, pending, ids) = (file.clone(), pending.clone(), ids.clone());
            world.spawn(async move {
                let n = n % READS;
                let read = file.read_at(AlignedBuf::zeroed(BLOCK), n * BLOCK as u64).await;
                assert_eq!(read.result.unwrap(), BLOCK);
                assert_eq!(read.buf[..], pattern(n, BLOCK)[..], "block {n}");
                assert!(ids.borrow_mut().insert(read.id), "id {:?} was used twice", read.id);
                pending.set(pending.get() - 1);
            });
        }
        while pending.get() > 0 {
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_micros(100)).await;
        }
        assert_eq!(ids.borrow().len() as u64, READS * rounds);
    });
}

#[test]
fn a_dropped_read_leaves_the_others_whole() {
    on_both(async |world, dir| {
        let file = open(world.disk(), &dir.join("log"), OpenMode::Device).await;
        for n in 0..64 {
            file.write_at(pattern(n, BLOCK), n * BLOCK as u64).await.result.unwrap();
        }
        for n in 0..64_u64 {
            // Started (polled once), then dropped while the kernel owns the buffer …
            {
                let mut dropped = pin!(file.read_at(AlignedBuf::zeroed(BLOCK), n * BLOCK as u64));
                poll_fn(|cx| {
                    let _ = dropped.as_mut().poll(cx);
                    Poll::Ready(())
                })
                .await;
            }
            // … whose memory is likely handed to these.
            let mine = pattern(1000 + n, BLOCK);
            let other = 63 - n;
            let read = file.read_at(AlignedBuf::zeroed(BLOCK), other * BLOCK as u64).await;
            assert_eq!(read.buf[..], pattern(other, BLOCK)[..]);
            assert_eq!(mine[..], pattern(1000 + n, BLOCK)[..]);
        }
        // The slots of the dropped ones come back: more than the ring has were dropped in all.
        for _ in 0..1000 {
            let mut dropped = pin!(file.read_at(AlignedBuf::zeroed(BLOCK), 0));
            poll_fn(|cx| {
                let _ = dropped.as_mut().poll(cx);
                Poll::Ready(())
            })
            .await;
        }
        assert_eq!(file.read_at(AlignedBuf::zeroed(BLOCK), 0).await.result.unwrap(), BLOCK);
    });
}

#[test]
fn a_worker_may_end_while_the_kernel_still_reads() {
    on_both(async |world, dir| {
        let file = open(world.disk(), &dir.join("log"), OpenMode::Device).await;
        file.write_at(pattern(5, 1 << 20), 0).await.result.unwrap();
        for _ in 0..100 {
            let file = file.clone();
            world.spawn(async move {
                file.read_at(AlignedBuf::zeroed(1 << 20), 0).await.result.unwrap();
                std::future::pending().await
            });
        }
        tokio::task::yield_now().await;
    });
}
