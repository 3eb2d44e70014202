//! The task that rewrites the append-only file: a walk over all keys while commands run.
//!
//! What it may cost the others: for one stretch of at most [`STRETCH_NS`] and one step of the walk its worker serves nobody,
//! then it rests for [`REST`]. A step is some buckets, fewer where records are large, or a piece of a large hash. At its beginning all workers are out
//! of their batches for as long as it takes to read one number a database.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ferrite_hybridlog::aof::{BaseWriter, RewriteError, Rewriter};
use ferrite_hybridlog::{Address, Held, ReadError};
use ferrite_io::{Clock, World, give_way};
use ferrite_keyspace::{Rest, Spaces, images};
use ferrite_telemetry::schema::{Attribute, ExceptionType, SpanName};
use ferrite_telemetry::{Exception, TraceBuffer, Value};
use futures_util::future::{join_all, select};
use std::sync::atomic::Ordering::Relaxed;

use crate::failure::Failure;
use crate::worker::Worker;

/// How often growth is looked at, as Redis's cron does.
const LOOK: Duration = Duration::from_secs(1);
/// Work between two rests, and a rest: the walk takes a third of its worker at most.
const STRETCH_NS: u64 = 500_000;
const REST: Duration = Duration::from_millis(1);
/// Buckets of one step at most.
const BUCKETS_MAX: usize = 64;
/// Bytes of effects from which on a step takes fewer buckets, and one frame is written.
const STEP_BYTES: usize = 64 << 10;
const FRAME_BYTES: usize = 256 << 10;
/// Cold records that are read at the same time.
const READS_MAX: usize = 32;
/// Values of more bytes are not read together.
const LARGE_MIN: u64 = 1 << 20;

/// Why the walk ended early.
#[derive(Debug, thiserror::Error)]
enum WalkError {
    #[error(transparent)]
    Write(#[from] RewriteError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the server ends")]
    Shutdown,
}

impl WalkError {
    /// What the trace says.
    fn failure(&self) -> Failure {
        let text = self.to_string();
        let of = |kind| Exception { kind, message: text.clone(), stack: None };
        let exception = match self {
            Self::Write(_) => Some(of(ExceptionType::RewriteFailed)),
            Self::Read(error) => Some(error.exception()),
            Self::Shutdown => None,
        };
        Failure { text, exception }
    }
}

/// Rewrites whenever a client or the log's growth asks for it, until the node ends. On the worker that writes the log.
pub(crate) async fn run<W: World>(worker: Rc<Worker<W>>, rewriter: Rewriter<W>) {
    let node = worker.node.clone();
    let (status, live) = (&node.rewrite, &node.live);
    while !node.shutdown.is_raised() {
        let clock = worker.world.clock();
        select(pin!(status.wished()), pin!(clock.sleep(LOOK))).await;
        let percentage = live.auto_aof_rewrite_percentage.load(Relaxed);
        let min_size = live.auto_aof_rewrite_min_size.load(Relaxed);
        let due = status.is_due(rewriter.aof().size(), percentage, min_size, worker.now_ns());
        if !due && !status.figures().wanted {
            continue;
        }
        // Not beside a checkpoint.
        let _turn = node.background.lock().await;
        status.begin(worker.now_ns());
        let (began_ns, before) = (worker.now_ns(), rewriter.aof().size().current);
        tracing::info!(bytes = before, "the append-only file is rewritten");
        let result = rewrite(&worker, &rewriter).await;
        status.end(result.is_ok(), worker.now_ns());
        let bytes = result.is_ok().then(|| rewriter.aof().size().current);
        node.work.rewrites.end(bytes, worker.now_ns() - began_ns, clock.unix_ns());
        let failure = result.as_ref().err().map(WalkError::failure);
        record(&worker, began_ns, [before, rewriter.aof().size().current], failure);
        match result {
            Ok(()) => {
                node.store.checkpoints_kept(&rewriter.checkpoints().await);
                tracing::info!(before, bytes = rewriter.aof().size().current, "the append-only file was rewritten")
            }
            Err(WalkError::Shutdown) => return,
            Err(error) => {
                tracing::warn!(%error, "the rewrite of the append-only file failed; the one there is stays in force")
            }
        }
    }
}

/// The rewrite as a trace of its own.
fn record<W: World>(worker: &Worker<W>, began_ns: u64, sizes: [u64; 2], failure: Option<Failure>) {
    let [before, after] = sizes.map(|bytes| Value::Int(bytes as i64));
    let attributes = [(Attribute::AofRewriteBytesBefore, before), (Attribute::AofRewriteBytesAfter, after)];
    worker.record_work(SpanName::AofRewrite, began_ns, &attributes, failure);
}

async fn rewrite<W: World>(worker: &Worker<W>, rewriter: &Rewriter<W>) -> Result<(), WalkError> {
    let mut base = rewriter.begin().await?;
    let (spaces, covers) = {
        let mut pinned = worker.handle.pin();
        // Nobody is between a write and its place in the log, and no database is emptied or swapped.
        let _alone = pinned.exclusive();
        (worker.node.databases.spaces(), rewriter.aof().position())
    };
    let mut walk = Walk::new(worker, spaces);
    match walk.run(&mut base).await {
        Ok(()) => Ok(base.finish(covers).await?),
        Err(error) => {
            base.abandon().await;
            Err(error)
        }
    }
}

/// Over all buckets, step by step.
struct Walk<'w, W: World> {
    worker: &'w Worker<W>,
    spaces: Spaces,
    buckets: usize,
    held: Held,
    effects: Vec<u8>,
    /// Of large hashes whose first piece is among the effects.
    rests: Vec<Rest>,
    /// Of looks that nobody is to see.
    silent: TraceBuffer,
    /// When its worker has served nobody for long enough.
    rest_at_ns: u64,
}

impl<'w, W: World> Walk<'w, W> {
    fn new(worker: &'w Worker<W>, spaces: Spaces) -> Self {
        Self {
            worker,
            spaces,
            buckets: 1,
            held: Held::default(),
            effects: Vec::new(),
            rests: Vec::new(),
            silent: TraceBuffer::new(|| 0),
            rest_at_ns: worker.now_ns() + STRETCH_NS,
        }
    }

    async fn run(&mut self, base: &mut BaseWriter<W>) -> Result<(), WalkError> {
        let mut cursor = 0;
        loop {
            cursor = self.step(cursor).await?;
            self.append(base, cursor == 0).await?;
            while let Some(rest) = self.rests.pop() {
                // As many fields as are dealt with in one go.
                give_way().await;
                self.pause().await?;
                self.go_on(rest).await?;
                self.append(base, cursor == 0 && self.rests.is_empty()).await?;
            }
            self.held.clear();
            if cursor == 0 {
                return Ok(());
            }
            self.pause().await?;
        }
    }

    /// Writes what there is, if that is enough for a frame, or `all` of it.
    async fn append(&mut self, base: &mut BaseWriter<W>, all: bool) -> Result<(), WalkError> {
        if all || self.effects.len() >= FRAME_BYTES {
            base.append(&self.effects).await?;
            self.effects.clear();
        }
        Ok(())
    }

    /// Rests, if it is time for that.
    async fn pause(&mut self) -> Result<(), WalkError> {
        if self.worker.now_ns() < self.rest_at_ns {
            return Ok(());
        }
        if self.worker.node.shutdown.is_raised() {
            return Err(WalkError::Shutdown);
        }
        self.worker.world.clock().sleep(REST).await;
        self.rest_at_ns = self.worker.now_ns() + STRETCH_NS;
        Ok(())
    }

    /// Takes up the next piece of a large hash.
    async fn go_on(&mut self, rest: Rest) -> Result<(), WalkError> {
        let put = rest.put(&self.worker.handle.pin(), &self.held, &mut self.silent, &mut self.effects);
        match put {
            Ok(rest) => self.rests.extend(rest),
            Err((cold, rest)) => {
                let record = self.worker.device.read_record(cold).await?.record;
                self.worker.stats().disk_reads.add(1);
                self.held.insert(cold, record);
                self.rests.push(rest);
            }
        }
        Ok(())
    }

    /// Takes up the keys of the next buckets. The next cursor; 0 at the end.
    async fn step(&mut self, cursor: u64) -> Result<u64, WalkError> {
        let before = self.effects.len();
        loop {
            let cold = {
                let pinned = self.worker.handle.pin();
                match images(
                    &pinned,
                    cursor,
                    self.buckets,
                    &self.held,
                    &self.spaces,
                    &mut self.effects,
                    &mut self.rests,
                ) {
                    Ok(next) => {
                        let bytes = self.effects.len() - before;
                        let wanted = if bytes > STEP_BYTES { self.buckets / 2 } else { self.buckets * 2 };
                        self.buckets = wanted.clamp(1, BUCKETS_MAX);
                        return Ok(next);
                    }
                    Err(cold) => cold,
                }
            };
            // Behind each of them may be another: the step is tried again with what has come.
            if cold.len() > READS_MAX && self.buckets > 1 {
                self.buckets /= 2;
            }
            let buckets = self.buckets;
            for some in cold.chunks(READS_MAX) {
                self.fetch(some).await?;
                if self.buckets < buckets {
                    break;
                }
            }
        }
    }

    async fn fetch(&mut self, addresses: &[Address]) -> Result<(), ReadError> {
        // Large values are read one after the other, and only those of one bucket are held.
        let device = &self.worker.device;
        let reads = addresses.iter().map(|&address| device.read_up_to(address, LARGE_MIN));
        for (&address, read) in addresses.iter().zip(join_all(reads).await) {
            let mut record = read?.record;
            if !record.is_whole() {
                if self.buckets > 1 {
                    self.buckets = 1;
                    return Ok(());
                }
                record = device.read_record(address).await?.record;
            }
            self.worker.stats().disk_reads.add(1);
            self.held.insert(address, record);
        }
        Ok(())
    }
}
