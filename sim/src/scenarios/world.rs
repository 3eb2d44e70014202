//! Scenarios that exercise the simulated World alone: if these are wrong, nothing that stands on them means anything.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferrite_io::{AlignedBuf, Clock, Disk, Entropy, File, Listener, Network, OpenMode, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::plan::FaultPlan;
use crate::rng::SimRng;
use crate::runner::{Scenario, ScenarioFuture};
use crate::sim::{Host, Sim, lock};
use crate::world::SimWorld;

/// Streams carry every byte once, in order and under back-pressure, until one side resets.
pub(super) const ECHO: Scenario = Scenario {
    name: "world-echo",
    about: "an echo server with two workers: bytes, back-pressure, half-close, resets",
    faults: |plan| plan,
    marks: &["echoed to the end", "connection reset", "both workers served"],
    run: |sim| -> ScenarioFuture { Box::pin(echo(sim)) },
};

/// Synced bytes and synced names survive each power loss; others may.
pub(super) const FILES: Scenario = Scenario {
    name: "world-files",
    about: "a file and a manifest through power losses at any I/O",
    faults: FaultPlan::without_disk_errors,
    marks: &["un-synced bytes lost", "un-synced bytes kept", "un-synced bytes changed", "rename lost", "lost twice"],
    run: |sim| -> ScenarioFuture { Box::pin(files(sim)) },
};

/// A full disk refuses writes, keeps reservations, and serves again when there is space.
pub(super) const FULL_DISK: Scenario = Scenario {
    name: "world-full-disk",
    about: "ENOSPC, reserved space, and space coming back",
    faults: FaultPlan::without_disk_errors,
    marks: &["disk full"],
    run: |sim| -> ScenarioFuture { Box::pin(full_disk(sim)) },
};

async fn echo(sim: Sim) {
    let server = sim.add_host("server");
    let address = SocketAddr::new(server.ip(), 7);
    let served = Arc::new(Mutex::new([0u32; 2]));
    let counts = served.clone();
    server.spawn(move |world| async move {
        let bound = world.network().bind(address).expect("the address is free");
        for worker in 0..2 {
            let listener = world.network().listen(&bound).expect("a bound address can be listened on");
            let (world_of_worker, counts) = (world.clone(), counts.clone());
            world.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.expect("accepting does not fail");
                    lock(&counts)[worker] += 1;
                    world_of_worker.spawn(echo_one(stream));
                }
            });
        }
        std::future::pending::<()>().await;
    });
    sim.sleep(Duration::from_millis(5)).await;
    let mut clients = Vec::new();
    for number in 0..4 {
        let host = sim.add_host(&format!("client {number}"));
        let (sim, rng) = (sim.clone(), sim.rng(&format!("echo {number}")));
        clients.push(host.spawn(move |world| echo_client(sim, world, address, rng)));
    }
    for client in clients {
        client.await.expect("client hosts stay up");
    }
    if lock(&served).iter().all(|&count| count > 0) {
        sim.sometimes("both workers served");
    }
}

async fn echo_one(mut stream: impl ferrite_io::Stream) {
    let mut buf = [0; 700];
    // An error is a reset: there is nobody to tell.
    while let Ok(len @ 1..) = stream.read(&mut buf).await {
        if stream.write_all(&buf[..len]).await.is_err() {
            return;
        }
    }
}

async fn echo_client(sim: Sim, world: SimWorld, address: SocketAddr, mut rng: SimRng) {
    let stream = world.network().connect(address).await.expect("the server listens");
    let mut sent = vec![0; rng.between(1, 20_000) as usize];
    world.entropy().fill(&mut sent);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let to_send = sent.clone();
    world.spawn(async move {
        for piece in to_send.chunks(rng.between(1, 3000) as usize) {
            if writer.write_all(piece).await.is_err() {
                return;
            }
        }
        // Half-close: the echo of what was sent still comes.
        let _ = writer.shutdown().await;
    });
    let mut received = Vec::new();
    match reader.read_to_end(&mut received).await {
        Ok(_) => {
            assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());
            sim.sometimes("echoed to the end");
        }
        Err(error) => {
            assert!(sim.plan().net_reset, "no reset was planned: {error}");
            assert!(sent.starts_with(&received), "what came back before the reset was sent");
            sim.sometimes("connection reset");
        }
    }
    let (before, wall) = (world.clock().monotonic_ns(), world.clock().unix_ns());
    world.clock().sleep(Duration::from_millis(3)).await;
    assert!(world.clock().monotonic_ns() >= before + 3_000_000);
    assert!(world.clock().unix_ns() > wall, "without jumps the wall clock goes on");
}

/// What the writer knows to be durable, and what it has written.
#[derive(Default)]
struct Progress {
    written: Vec<u8>,
    synced: usize,
    manifest: u64,
    manifest_acknowledged: u64,
}

async fn files(sim: Sim) {
    let host = sim.add_host("server");
    let mut rng = sim.rng("files");
    let progress = Arc::new(Mutex::new(Progress::default()));
    for round in 0..6 {
        let (shared, writer_rng) = (progress.clone(), sim.rng(&format!("writer {round}")));
        let at_start = round > 0;
        let checks = sim.clone();
        if rng.one_in(3) {
            host.power_loss_at_io(rng.between(1, 8));
        } else {
            host.power_loss_at_io(rng.between(8, 120));
        }
        host.spawn(move |world| async move {
            if at_start {
                recover(&checks, &world, &shared).await;
            }
            write_files(world, shared, writer_rng).await;
        });
        host.died().await;
        sim.sleep(Duration::from_millis(rng.between(1, 50))).await;
        host.boot();
    }
    check_final(&sim, &host, progress).await;
}

/// Everything is read, compared and, as far as it survived, taken as what is there now.
async fn recover(sim: &Sim, world: &SimWorld, progress: &Arc<Mutex<Progress>>) {
    let directory = Path::new("/data");
    let disk = world.disk();
    disk.create_dir_all(directory).await.expect("it exists or is made");
    let _lock = disk.lock(Path::new("/data/lock")).expect("a dead process holds no lock");
    let log = disk.open(Path::new("/data/log"), OpenMode::Sequential).await.expect("opens");
    let len = log.len().await.expect("an open file has a length");
    let done = log.read_at(AlignedBuf::zeroed(len as usize), 0).await;
    assert_eq!(done.result.expect("no read faults are planned"), len as usize);
    let manifest = match disk.open(Path::new("/data/manifest"), OpenMode::ReadOnly).await {
        Ok(file) => {
            let done = file.read_at(AlignedBuf::zeroed(8), 0).await;
            u64::from_le_bytes(done.buf[..8].try_into().expect("eight bytes"))
        }
        Err(_) => 0,
    };
    {
        let mut known = lock(progress);
        let synced = known.synced;
        assert!(done.buf.len() >= synced, "{} bytes were synced, {len} survived", synced);
        assert!(done.buf[..synced] == known.written[..synced], "synced bytes changed");
        assert!(
            (known.manifest_acknowledged..=known.manifest).contains(&manifest),
            "manifest {manifest}, acknowledged {}, written {}",
            known.manifest_acknowledged,
            known.manifest
        );
        if manifest < known.manifest {
            sim.sometimes("rename lost");
        }
        if known.written.len() > synced {
            match done.buf.len().cmp(&known.written.len()) {
                std::cmp::Ordering::Less => sim.sometimes("un-synced bytes lost"),
                _ if *done.buf == known.written[..] => sim.sometimes("un-synced bytes kept"),
                _ => sim.sometimes("un-synced bytes changed"),
            }
        }
        known.written = done.buf.to_vec();
        // Until it is synced again, only the old promise holds; but what was found did survive a power loss, and the
        // disk does not take back what it has.
        known.manifest = manifest;
    }
    log.sync().await.expect("no sync faults are planned");
    let mut known = lock(progress);
    known.synced = known.written.len();
    known.manifest_acknowledged = known.manifest;
}

async fn write_files(world: SimWorld, progress: Arc<Mutex<Progress>>, mut rng: SimRng) {
    let directory = Path::new("/data");
    let disk = world.disk();
    disk.create_dir_all(directory).await.expect("it exists or is made");
    let log = disk.open(Path::new("/data/log"), OpenMode::Sequential).await.expect("opens");
    disk.sync_dir(directory).await.expect("no sync faults are planned");
    loop {
        let mut piece = vec![0; rng.between(1, 3000) as usize];
        rng.fill(&mut piece);
        let offset = {
            let mut known = lock(&progress);
            known.written.extend(&piece);
            known.written.len() - piece.len()
        };
        let done = log.write_at(AlignedBuf::copy_of(&piece), offset as u64).await;
        assert_eq!(done.result.expect("no write faults are planned"), piece.len());
        if rng.one_in(2) {
            log.sync().await.expect("no sync faults are planned");
            lock(&progress).synced = offset + piece.len();
        }
        if rng.one_in(4) {
            let number = {
                let mut known = lock(&progress);
                known.manifest += 1;
                known.manifest
            };
            let new = disk.open(Path::new("/data/manifest.new"), OpenMode::Sequential).await.expect("opens");
            let done = new.write_at(AlignedBuf::copy_of(&number.to_le_bytes()), 0).await;
            done.result.expect("no write faults are planned");
            new.sync().await.expect("no sync faults are planned");
            disk.rename(Path::new("/data/manifest.new"), Path::new("/data/manifest")).await.expect("renames");
            disk.sync_dir(directory).await.expect("no sync faults are planned");
            lock(&progress).manifest_acknowledged = number;
        }
    }
}

async fn check_final(sim: &Sim, host: &Host, progress: Arc<Mutex<Progress>>) {
    // Twice in a row: what one power loss left, the next one does not take.
    let before = host.peek("/data/log");
    host.power_loss();
    host.boot();
    assert!(host.peek("/data/log") == before, "a disk without un-synced data loses nothing");
    sim.sometimes("lost twice");
    let checks = sim.clone();
    let last = host.spawn(move |world| async move { recover(&checks, &world, &progress).await });
    last.await.expect("no power loss is planned any more");
}

async fn full_disk(sim: Sim) {
    const PAGE: u64 = 4096;
    let host = sim.add_host("server");
    let mut rng = sim.rng("full disk");
    let pages = rng.between(4, 40);
    let reserved = rng.between(1, pages - 1);
    host.set_disk_capacity(Some(pages * PAGE));
    let (owner, checks) = (host.clone(), sim.clone());
    let task = host.spawn(move |world| async move {
        let disk = world.disk();
        disk.create_dir_all(Path::new("/data")).await.expect("directories take no space");
        let kept = disk.open(Path::new("/data/kept"), OpenMode::Sequential).await.expect("opens");
        kept.allocate(0, reserved * PAGE).await.expect("there is space");
        let other = disk.open(Path::new("/data/other"), OpenMode::Sequential).await.expect("opens");
        let page = [7; PAGE as usize];
        let mut written = 0;
        let error = loop {
            let done = other.write_at(AlignedBuf::copy_of(&page), written * PAGE).await;
            match done.result {
                Ok(len) => assert_eq!(len as u64, PAGE),
                Err(error) => break error,
            }
            written += 1;
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(written, pages - reserved);
        checks.sometimes("disk full");
        for number in 0..reserved {
            let done = kept.write_at(AlignedBuf::copy_of(&page), number * PAGE).await;
            done.result.expect("the space is reserved");
        }
        assert_eq!(owner.disk_used(), pages * PAGE);
        owner.set_disk_capacity(None);
        let done = other.write_at(AlignedBuf::copy_of(&page), written * PAGE).await;
        done.result.expect("space came back");
    });
    task.await.expect("the host stays up");
}
