//! Putting back what a start finds: a checkpoint, and the effects of the append-only file behind it.
//!
//! Effects are applied in their order and many without a wait between them. Most ask nothing of the disk: what is overwritten
//! there is looked at later ([`ferrite_keyspace::UnseenWrites`]). What the others will ask for is read beforehand, for a whole
//! batch at once.

use std::sync::Arc;

use ferrite_hybridlog::aof::Effect;
use ferrite_hybridlog::checkpoint::{LoadError, keep, restore};
use ferrite_hybridlog::datadir::{NamedCheckpoint, Recover};
use ferrite_hybridlog::{
    Address, Held, LogDevice, Pinned, ReadError, StorageError, WorkerHandle, create_log, flush_task, open_log,
};
use ferrite_io::{Clock, World};
use ferrite_keyspace::{Foresight, Keyspace, Lent, Pause, RestoreError, Scratch};
use ferrite_telemetry::TraceBuffer;
use futures_util::future::join_all;

use crate::flush;
use crate::node::Node;
use crate::start::log_path;

/// Effects that are applied before the index gets its turn to grow: as many as a worker's writes.
const SLICE: usize = 16;
/// Records that are read at a time: as many as are in flight for a worker.
const READS_MAX: usize = 256;
/// As many times more writes than at other times may be left to be looked at later: who comes afterwards waits for the counts, not
/// for the start. Where there is little memory it is not more than they are worth.
const NOTES_PART: usize = 4;
const BYTES_PER_NOTE: usize = 1024;
/// Bytes of records that are held for a batch at most, but for those of the last reads.
const HELD_BYTES_MAX: usize = 32 << 20;
/// How far chains are followed beforehand: what is further down is left to the effect itself.
const STEPS_MAX: usize = 3;

/// Why the replay of the append-only file stops.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error("{0}")]
    Storage(#[from] StorageError),
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Refused(&'static str),
    #[error("{0}")]
    Databases(#[from] RestoreError),
}

/// Applies effects to the empty store.
pub(crate) struct Replay<W: World> {
    node: Arc<Node>,
    /// Writes that may be left to be looked at later, at other times.
    notes_max: usize,
    world: W,
    pub handle: WorkerHandle,
    /// Made with the log at the first effect: only once the directory is locked may its log be made anew.
    device: Option<LogDevice<W>>,
    /// A checkpoint was: its log goes on.
    restored: bool,
    held: Held,
    scratch: Scratch,
    trace: TraceBuffer,
    pub reporter: flush::Reporter<W>,
}

/// What effects are applied to, one at a time: nothing of it goes to an append-only file.
fn keyspace<'a>(
    pinned: &'a Pinned<'a>,
    node: &'a Node,
    held: &'a Held,
    trace: &'a mut TraceBuffer,
    scratch: &'a mut Scratch,
) -> Keyspace<'a> {
    let databases = &node.databases;
    Keyspace::new(Lent { pinned, held, trace, databases, aof: None, scratch, now_ms: 0 }, 0)
}

impl<W: World> Recover for Replay<W> {
    type Error = ReplayError;

    async fn restore(&mut self, checkpoint: &NamedCheckpoint) -> Result<Result<(), LoadError>, ReplayError> {
        let (node, path) = (&self.node, log_path(&self.node));
        let restored = match restore(&self.handle, &self.world, checkpoint, &path).await {
            Ok(restored) => restored,
            Err(error) => return Ok(Err(error)),
        };
        node.databases.restore(&restored.upper, &restored.chunks)?;
        self.restored = true;
        let keys = node.databases.total_keys();
        node.saves.loaded(keys);
        tracing::info!(
            checkpoint = %checkpoint.path.display(),
            keys,
            bytes = restored.bytes,
            taken_unix_ms = restored.unix_ms,
            "a checkpoint was restored"
        );
        Ok(Ok(()))
    }

    async fn keep(&mut self, checkpoint: &NamedCheckpoint) -> Result<Result<(), LoadError>, ReplayError> {
        Ok(keep(&self.node.store, &self.world, checkpoint).await)
    }

    async fn apply(&mut self, effects: &[Effect<'_>]) -> Result<(), (usize, ReplayError)> {
        self.device().await.map_err(|error| (0, error))?;
        self.foresee(effects).await;
        let mut at = 0;
        let result = loop {
            match self.apply_some(effects, &mut at) {
                Ok(()) => break Ok(()),
                Err(pause) => {
                    if let Err(error) = self.wait(pause).await {
                        break Err((at, error));
                    }
                }
            }
        };
        self.held.clear();
        self.node.databases.absorb(&mut self.scratch);
        result
    }
}

impl<W: World> Replay<W> {
    pub fn new(node: Arc<Node>, world: W) -> Self {
        let handle = node.store.worker(0);
        handle.set_access_clock((world.clock().unix_ns() / 1_000_000_000) as u32, node.databases.limits.access_mode());
        let mut trace = TraceBuffer::new(W::Clock::monotonic_source());
        trace.configure(None);
        let region = (node.config.storage.mutable_region_size_mb * f64::from(1 << 20)) as usize;
        let notes_max = node.databases.unseen.max();
        node.databases.unseen.set_max((region / BYTES_PER_NOTE).clamp(notes_max, NOTES_PART * notes_max));
        Self {
            notes_max,
            node,
            world,
            handle,
            device: None,
            restored: false,
            held: Held::default(),
            scratch: Scratch::new(0),
            trace,
            reporter: flush::Reporter::default(),
        }
    }

    /// Everything was applied.
    pub fn end(&self) {
        self.node.databases.unseen.set_max(self.notes_max);
    }

    pub async fn device(&mut self) -> Result<&LogDevice<W>, ReplayError> {
        if self.device.is_none() {
            let (store, path) = (&self.node.store, log_path(&self.node));
            let files = match self.restored {
                true => open_log(store, &self.world, &path).await?,
                false => create_log(store, &self.world, &path).await?,
            };
            let on_run = flush::on_run(self.node.clone(), self.reporter.clone());
            self.world.spawn(flush_task(store.clone(), self.world.clone(), files.clone(), on_run));
            self.device = Some(LogDevice::new(store.clone(), self.world.clone(), files));
        }
        Ok(self.device.as_ref().expect("just made"))
    }

    /// Reads what the effects will ask for, as far as that can be told before the first of them is applied. What cannot be read
    /// is left to the effect that needs it.
    async fn foresee(&mut self, effects: &[Effect<'_>]) {
        let mut held_bytes = 0;
        for _ in 0..STEPS_MAX {
            let mut cold = self.cold_of(effects);
            cold.sort_unstable();
            cold.dedup();
            cold.retain(|&address| self.held.get(address).is_none());
            if cold.is_empty() {
                return;
            }
            for some in cold.chunks(READS_MAX) {
                if held_bytes > HELD_BYTES_MAX {
                    return;
                }
                let device = self.device.as_ref().expect("it was made before");
                let reads = join_all(some.iter().map(|&address| device.read_header(address))).await;
                for (&address, read) in some.iter().zip(reads) {
                    if let Ok(read) = read {
                        held_bytes += read.record.buffer_bytes();
                        self.held.insert(address, read.record);
                    }
                }
            }
        }
    }

    /// Records on disk that the effects will ask for.
    fn cold_of(&mut self, effects: &[Effect<'_>]) -> Vec<Address> {
        let mut foresight = Foresight::default();
        let mut pinned = self.handle.pin();
        let exclusive = pinned.exclusive();
        for &effect in effects {
            let keyspace = keyspace(&exclusive, &self.node, &self.held, &mut self.trace, &mut self.scratch);
            keyspace.foresee(effect, &mut foresight);
        }
        foresight.cold
    }

    /// Applies the effects from `at` on, which goes along, up to one that has to wait.
    fn apply_some(&mut self, effects: &[Effect<'_>], at: &mut usize) -> Result<(), Pause> {
        let mut pinned = self.handle.pin();
        while *at < effects.len() {
            let exclusive = pinned.exclusive();
            for &effect in effects[*at..].iter().take(SLICE) {
                keyspace(&exclusive, &self.node, &self.held, &mut self.trace, &mut self.scratch).replay(effect)?;
                *at += 1;
            }
            drop(exclusive);
            pinned.refresh();
        }
        Ok(())
    }

    async fn wait(&mut self, pause: Pause) -> Result<(), ReplayError> {
        match pause {
            Pause::Keys | Pause::Headers(_) | Pause::Part { .. } | Pause::Counts { .. } => {
                unreachable!("a replay names the records itself")
            }
            Pause::Records(addresses) => {
                for address in addresses {
                    let read = self.device().await?.read_record(address).await?;
                    self.held.insert(address, read.record);
                }
                Ok(())
            }
            Pause::Space(need) => Ok(self.node.store.wait_for_space(&need).await?),
            Pause::Refused(reason) => Err(ReplayError::Refused(reason)),
        }
    }
}
