//! A server of the simplest kind: the model behind a log that is synced before every reply. It shows that the oracles of
//! [`super::redis`] accept a right server and, with a planted bug, that they catch a wrong one.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ferrite_io::{AlignedBuf, Clock, Disk, File, Listener, Network, OpenMode, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::redis::{Load, StartServer, random_commands};
use super::shared::shared_keys;
use crate::disk::SimFile;
use crate::log::StableHasher;
use crate::model::{Command, Model};
use crate::net::SimStream;
use crate::plan::FaultPlan;
use crate::resp::{Reply, encode_command};
use crate::runner::{Scenario, ScenarioFuture};
use crate::world::SimWorld;

const MODEL_LOAD: Load = Load {
    batches: 40,
    crashes: 0,
    protocol: redis::ProtocolVersion::RESP2,
    payload_max: 6000,
    keys: 16,
    rewrites: false,
    saves: false,
    sessions: false,
    compacts: false,
};
const CRASH_LOAD: Load = Load {
    batches: 30,
    crashes: 4,
    protocol: redis::ProtocolVersion::RESP2,
    payload_max: 6000,
    keys: 16,
    rewrites: false,
    saves: false,
    sessions: false,
    compacts: false,
};

/// The model scenario on the toy.
pub(super) const RANDOM_COMMANDS: Scenario = Scenario {
    name: "toy-random-commands",
    about: "random commands of several clients against the model, on a toy server",
    faults: FaultPlan::without_disk_errors,
    marks: &["unanswered lost", "unanswered happened"],
    run: |sim| -> ScenarioFuture { Box::pin(random_commands(sim, START, MODEL_LOAD)) },
};

/// The crash scenario on the toy.
pub(super) const POWER_LOSS: Scenario = Scenario {
    name: "toy-power-loss",
    about: "power loss at any I/O loses nothing acknowledged, on a toy server",
    faults: FaultPlan::without_disk_errors,
    marks: &["server crashed", "unanswered lost", "unanswered happened"],
    run: |sim| -> ScenarioFuture { Box::pin(random_commands(sim, START, CRASH_LOAD)) },
};

/// The crash scenario on a toy with a planted bug: it must fail on some seeds.
pub fn power_loss_with(bug: Bug) -> Scenario {
    let run: fn(crate::Sim) -> ScenarioFuture = match bug {
        Bug::ReplyBeforeSync => {
            |sim| Box::pin(random_commands(sim, |world, at| serve(world, at, Some(Bug::ReplyBeforeSync)), CRASH_LOAD))
        }
        Bug::NoChecksum => {
            |sim| Box::pin(random_commands(sim, |world, at| serve(world, at, Some(Bug::NoChecksum)), CRASH_LOAD))
        }
        Bug::NoSyncDir => {
            |sim| Box::pin(random_commands(sim, |world, at| serve(world, at, Some(Bug::NoSyncDir)), CRASH_LOAD))
        }
        Bug::OneReplyForgotten => {
            |sim| Box::pin(random_commands(sim, |world, at| serve(world, at, Some(Bug::OneReplyForgotten)), CRASH_LOAD))
        }
        other => panic!("{other:?} is for shared keys"),
    };
    Scenario { name: "toy-with-a-bug", run, ..POWER_LOSS }
}

/// Shared keys on a toy with a planted bug: no client by itself can notice it.
pub fn shared_keys_with(bug: Bug) -> Scenario {
    let run: fn(crate::Sim) -> ScenarioFuture = match bug {
        Bug::LostUpdate => |sim| Box::pin(shared_keys(sim, |world, at| serve(world, at, Some(Bug::LostUpdate)), false)),
        Bug::OldRead => |sim| Box::pin(shared_keys(sim, |world, at| serve(world, at, Some(Bug::OldRead)), false)),
        other => panic!("{other:?} is for the crash scenario"),
    };
    Scenario { name: "toy-shared-with-a-bug", about: "shared keys on a toy that is wrong", run, ..POWER_LOSS }
}

/// The same on the toy as it is.
pub const SHARED_KEYS: Scenario = Scenario {
    name: "toy-shared-keys",
    about: "what clients see of the same keys fits into one order, on a toy server",
    marks: &["a command was lost", "server crashed", "several orders were possible"],
    run: |sim| -> ScenarioFuture { Box::pin(shared_keys(sim, START, false)) },
    ..POWER_LOSS
};

/// Mistakes that a real server could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    ReplyBeforeSync,
    NoChecksum,
    NoSyncDir,
    /// An INCRBY is not written to the log.
    OneReplyForgotten,
    /// An INCRBY reads, waits, and writes what it has made of what was there.
    LostUpdate,
    /// For a millisecond after a write a GET is answered from before it.
    OldRead,
}

/// How long [`Bug::LostUpdate`] waits and [`Bug::OldRead`] stays behind.
const BUG_TIME: Duration = Duration::from_millis(1);

/// Starts the toy.
pub const START: StartServer = |world, address| serve(world, address, None);

fn serve(world: SimWorld, address: SocketAddr, bug: Option<Bug>) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let log = Log::recover(&world, bug).await;
        let toy = Rc::new(Toy { log: tokio::sync::Mutex::new(log), bug });
        let bound = world.network().bind(address).expect("a dead process holds no address");
        for _ in 0..2 {
            let listener = world.network().listen(&bound).expect("a bound address can be listened on");
            let (inner, toy) = (world.clone(), toy.clone());
            world.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.expect("accepting does not fail");
                    inner.spawn(toy.clone().serve_one(inner.clone(), stream));
                }
            });
        }
        std::future::pending().await
    })
}

struct Toy {
    /// Held from execution to sync, so that the log's order is the order of execution.
    log: tokio::sync::Mutex<Log>,
    bug: Option<Bug>,
}

impl Toy {
    async fn serve_one(self: Rc<Self>, world: SimWorld, stream: SimStream) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        // Clients may write a whole pipeline before they read the first reply (redis-py does): a server that stops
        // reading while its replies wait would wait for ever.
        let (replies, mut to_write) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
        world.spawn(async move {
            while let Some(bytes) = to_write.recv().await {
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            // A failure means that the peer has gone already.
            let _ = writer.shutdown().await;
        });
        let mut received = Vec::new();
        // The end, or a reset: there is nobody to tell.
        while let Ok(1..) = reader.read_buf(&mut received).await {
            while let Some((Reply::Array(words), len)) = Reply::parse(&received).expect("the clients speak RESP") {
                received.drain(..len);
                let command = words.into_iter().map(|word| match word {
                    Reply::Bulk(bytes) => bytes,
                    other => panic!("not a word: {other:?}"),
                });
                let mut bytes = Vec::new();
                self.execute(command.collect()).await.encode(&mut bytes);
                if replies.send(bytes).is_err() {
                    return;
                }
            }
        }
    }

    async fn execute(&self, command: Command) -> Reply {
        match command[0].to_ascii_uppercase().as_slice() {
            b"PING" => return Reply::Simple("PONG".to_string()),
            b"CLIENT" => return Reply::ok(),
            _ => {}
        }
        if self.bug == Some(Bug::LostUpdate) && command[0] == b"INCRBY" {
            return self.increment_of_what_was(command).await;
        }
        let mut log = self.log.lock().await;
        if self.bug == Some(Bug::OldRead)
            && command[0] == b"GET"
            && now_ns() < log.changed_ns + BUG_TIME.as_nanos() as u64
        {
            return log.before.apply(&command);
        }
        let before = log.model.borrow().clone();
        let reply = log.model.borrow_mut().apply(&command);
        let changed = log.model.borrow().dump() != before.dump();
        if changed && self.bug == Some(Bug::OldRead) {
            (log.before, log.changed_ns) = (before, now_ns());
        }
        let forgotten = self.bug == Some(Bug::OneReplyForgotten) && command[0] == b"INCRBY";
        if changed && !forgotten {
            log.append(&command, self.bug != Some(Bug::ReplyBeforeSync)).await;
        }
        reply
    }
}

fn now_ns() -> u64 {
    <<SimWorld as World>::Clock as Clock>::monotonic_source()()
}

impl Toy {
    /// [`Bug::LostUpdate`]: what others add meanwhile is gone.
    async fn increment_of_what_was(&self, command: Command) -> Reply {
        let mut model = self.log.lock().await.model.borrow().clone();
        madsim::time::sleep(BUG_TIME).await;
        let reply = model.apply(&command);
        if let Reply::Int(number) = reply {
            let set = vec![b"SET".to_vec(), command[1].clone(), number.to_string().into_bytes()];
            let mut log = self.log.lock().await;
            log.model.borrow_mut().apply(&set);
            log.append(&set, true).await;
        }
        reply
    }
}

/// Frames of length, hash and a command.
struct Log {
    /// For [`Bug::OldRead`]: what was there before the last change, and when that was.
    before: Model,
    changed_ns: u64,
    model: Rc<RefCell<Model>>,
    file: SimFile,
    end: u64,
}

const FRAME_HEADER: usize = 16;

impl Log {
    async fn recover(world: &SimWorld, bug: Option<Bug>) -> Self {
        let (disk, directory) = (world.disk(), Path::new("/data"));
        disk.create_dir_all(directory).await.expect("it exists or is made");
        let file = disk.open(Path::new("/data/log"), OpenMode::Sequential).await.expect("opens");
        if bug != Some(Bug::NoSyncDir) {
            disk.sync_dir(directory).await.expect("no sync faults are planned");
        }
        let len = file.len().await.expect("an open file has a length");
        let done = file.read_at(AlignedBuf::zeroed(len as usize), 0).await;
        done.result.expect("no read faults are planned");
        let mut model = Model::new();
        let mut end = 0;
        while let Some((command, frame)) = parse_frame(&done.buf[end..], bug) {
            model.apply(&command);
            end += frame;
        }
        file.set_len(end as u64).await.expect("the torn tail is cut");
        file.sync().await.expect("no sync faults are planned");
        Self { before: model.clone(), changed_ns: 0, model: Rc::new(RefCell::new(model)), file, end: end as u64 }
    }

    async fn append(&mut self, command: &Command, sync: bool) {
        let mut bytes = Vec::new();
        encode_command(command, &mut bytes);
        let mut frame = (bytes.len() as u64).to_le_bytes().to_vec();
        frame.extend(StableHasher::of(&bytes).to_le_bytes());
        frame.extend(bytes);
        let done = self.file.write_at(AlignedBuf::copy_of(&frame), self.end).await;
        done.result.expect("no write faults are planned");
        self.end += frame.len() as u64;
        if sync {
            self.file.sync().await.expect("no sync faults are planned");
        }
    }
}

/// The first command and the length of its frame; `None` at the end or at damage.
fn parse_frame(bytes: &[u8], bug: Option<Bug>) -> Option<(Command, usize)> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let len = usize::try_from(word(0)?).ok()?;
    let body = bytes.get(FRAME_HEADER..FRAME_HEADER.checked_add(len)?)?;
    if bug != Some(Bug::NoChecksum) && StableHasher::of(body) != word(8)? {
        return None;
    }
    let (Reply::Array(words), _) = Reply::parse(body).ok()?? else {
        return None;
    };
    let words: Option<Command> = words
        .into_iter()
        .map(|word| match word {
            Reply::Bulk(bytes) => Some(bytes),
            _ => None,
        })
        .collect();
    words.filter(|words| !words.is_empty()).map(|words| (words, FRAME_HEADER + len))
}
