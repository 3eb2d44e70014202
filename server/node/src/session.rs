//! One connection: bytes in, batches of commands, bytes out, in order.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use ferrite_commands::Session;
use ferrite_io::{Clock, Network, Stream, World};
use ferrite_otlp::DiskWork;
use ferrite_resp::{Limits, Parsed, Parser, ProtocolError, Reply};
use ferrite_telemetry::schema::ConnectionEnd;
use ferrite_telemetry::{Attribute, SpanName, SyncSlot, TraceBuffer, Value};
use futures_util::future::select;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::clients::{Client, Labels};
use crate::held_reads::HeldReads;
use crate::prefetch::DiskSlots;
use crate::worker::Worker;

/// Room for one read of a connection.
const READ_BYTES: usize = 16 * 1024;
/// Commands of one batch: what is beyond waits for the next one, after this one's replies have left.
pub(crate) const BATCH_COMMANDS_MAX: usize = 1024;
/// Replies are written once this many bytes have gathered, even within a batch: a reader that is slower than its
/// commands holds back its own connection, not the server's memory.
pub(crate) const OUTPUT_FLUSH_BYTES: usize = 1 << 20;
/// Buffers that have grown beyond this are given back once they are empty.
const RETAINED_BYTES_MAX: usize = 64 * 1024;

/// How long a connection that is being closed may go on sending.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A parsed command of the batch at hand.
#[derive(Default)]
pub(crate) struct Pending {
    /// Where it starts in the input.
    pub at: usize,
    pub parsed: Parsed,
    /// Its index in the trace buffer.
    pub trace: usize,
    /// Space and hash of its first argument, which nearly always is its key, once they are known.
    pub hashed: Option<(u32, u64)>,
}

/// One connection's state.
pub(crate) struct Connection<W: World> {
    pub worker: Rc<Worker<W>>,
    pub stream: <W::Network as Network>::Stream,
    pub client: Arc<Client>,
    pub session: Session,
    parser: Parser,
    pub input: BytesMut,
    /// The batch; its buffers are reused.
    pub commands: Vec<Pending>,
    pub output: Vec<u8>,
    pub trace: TraceBuffer,
    pub held: HeldReads,
    pub disk_slots: DiskSlots,
    /// Waits for the AOF that the batch's commands have recorded.
    pub syncs: Vec<SyncSlot>,
    /// Commands whose replies are in `output`.
    pub unanswered: usize,
    /// What CLIENT LIST shows of this connection.
    shown: Labels,
    /// Kill finds this task.
    registered: bool,
    /// When the connection began, on the monotonic clock.
    opened_ns: u64,
    pub tally: Tally,
    /// Why it has ended, once it has.
    end: Option<ConnectionEnd>,
}

/// What a connection's own trace counts.
#[derive(Default)]
pub(crate) struct Tally {
    pub commands: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

/// Why a connection ends that was told to.
fn killed<W: World>(worker: &Worker<W>, client: &Client) -> ConnectionEnd {
    if worker.node.shutdown.is_raised() { ConnectionEnd::Shutdown } else { client.why_killed() }
}

/// Serves one connection until it ends.
pub(crate) async fn serve<W: World>(
    worker: Rc<Worker<W>>,
    mut stream: <W::Network as Network>::Stream,
    peer: SocketAddr,
) {
    let node = worker.node.clone();
    let clock = worker.world.clock().clone();
    let local = stream.local_addr().unwrap_or(peer);
    let id = node.clients.next_id();
    let opened_ns = clock.monotonic_ns();
    let client = Arc::new(Client::new(id, peer, local, clock.unix_ns() / 1_000_000, opened_ns));
    if !node.clients.try_insert(client.clone(), node.live.maxclients.load(Relaxed)) {
        worker.stats().rejected_connections.add(1);
        // The client may be gone already; it is refused either way.
        let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
        return;
    }
    let keepalive_s = node.config.server.tcp_keepalive;
    if keepalive_s > 0
        && let Err(error) = stream.set_keepalive(Duration::from_secs(keepalive_s))
    {
        tracing::debug!(client = id, %error, "keep-alive could not be set");
    }
    let open = node.live.requirepass.lock().is_none();
    let mut trace = worker.recorder.borrow_mut().buffer();
    trace.connection(id, Some(peer));
    let mut connection = Connection {
        session: Session::new(id, peer.to_string(), local.to_string(), open),
        worker,
        stream,
        client,
        parser: Parser::default(),
        input: BytesMut::new(),
        commands: Vec::new(),
        output: Vec::new(),
        trace,
        held: HeldReads::new(node.clone()),
        disk_slots: DiskSlots::new(),
        syncs: Vec::new(),
        unanswered: 0,
        shown: Labels::default(),
        registered: false,
        opened_ns,
        tally: Tally::default(),
        end: None,
    };
    connection.run().await;
    connection.session.discard_transaction();
    connection.record_end();
    node.clients.remove(id);
}

impl<W: World> Connection<W> {
    async fn run(&mut self) {
        loop {
            if let Err(end) = self.read().await {
                self.end = Some(end);
                return;
            }
            if !self.work().await {
                self.close().await;
                return;
            }
        }
    }

    /// Ends the connection so that its last replies still reach the client: closing a socket with unread input resets
    /// it, and a reset may overtake them. So what the client still sends is read away, for a bounded time.
    async fn close(&mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let clock = self.worker.world.clock().clone();
        let Connection { stream, input, .. } = self;
        let read_away = async {
            loop {
                input.clear();
                if !matches!(stream.read_buf(input).await, Ok(bytes) if bytes > 0) {
                    return;
                }
            }
        };
        select(pin!(read_away), pin!(clock.sleep(CLOSE_MAX))).await;
    }

    /// The connection's own trace: one span, which is no command's parent.
    fn record_end(&mut self) {
        // A client that is gone ends the batch at hand; what was recorded of it ends here.
        self.commit();
        let end = self.end.unwrap_or(match self.worker.node.shutdown.is_raised() {
            true => ConnectionEnd::Shutdown,
            false => ConnectionEnd::ClosedAfterReply,
        });
        let count = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let attributes = [
            (Attribute::ConnectionEndReason, Value::Str(end.as_str().into())),
            (Attribute::ConnectionCommandsCount, count(self.tally.commands)),
            (Attribute::ConnectionBytesReceived, count(self.tally.bytes_received)),
            (Attribute::ConnectionBytesSent, count(self.tally.bytes_sent)),
        ];
        let error = end.is_error().then_some(end.as_str());
        self.trace.root(SpanName::Connection, self.opened_ns, &attributes, error);
        self.commit();
    }

    /// Hands what was recorded to the worker's recorder.
    fn commit(&mut self) {
        self.worker.commit(&mut self.worker.recorder.borrow_mut(), &mut self.trace);
    }

    /// Works through all complete commands of the input. False: the connection ends.
    async fn work(&mut self) -> bool {
        loop {
            let (count, consumed, broken) = self.parse_batch();
            if count > 0 && (!self.run_batch(count).await || self.session.close_after_reply) {
                return false;
            }
            self.input.advance(consumed);
            if let Some(error) = broken {
                tracing::debug!(client = self.client.id, error = error.recorded(), "a connection is closed");
                self.end = Some(ConnectionEnd::ProtocolError);
                Reply::new(&mut self.output, self.session.protocol).error([b"ERR ".as_slice(), &error.text()].concat());
                self.node_error();
                // Closing either way.
                let _ = self.flush().await;
                return false;
            }
            self.end_batch();
            if self.input.is_empty() {
                return true;
            }
            if consumed == 0 {
                return self.input.len() as u64 <= self.worker.node.live.query_buffer_limit.load(Relaxed)
                    || self.refuse_long_input();
            }
        }
    }

    fn node_error(&self) {
        self.worker.stats().errors.add(1);
        self.worker.node.count_error(b"ERR");
    }

    fn refuse_long_input(&mut self) -> bool {
        self.end = Some(ConnectionEnd::QueryBufferLimit);
        tracing::warn!(
            client = self.client.id,
            bytes = self.input.len(),
            "a client exceeded client-query-buffer-limit and is closed"
        );
        false
    }

    /// Finds the complete commands of the input: how many, how many bytes they take, and what stopped the parser.
    fn parse_batch(&mut self) -> (usize, usize, Option<ProtocolError>) {
        let limits = Limits {
            max_bulk_len: self.worker.node.live.proto_max_bulk_len.load(Relaxed) as usize,
            authenticated: self.session.authenticated,
            ..Limits::default()
        };
        let (mut count, mut at) = (0, 0);
        self.trace.start_batch();
        while count < BATCH_COMMANDS_MAX && at < self.input.len() {
            if self.commands.len() == count {
                self.commands.push(Pending::default());
            }
            let pending = &mut self.commands[count];
            match self.parser.parse(&self.input[at..], &limits, &mut pending.parsed) {
                Ok(true) => {
                    pending.at = at;
                    at += pending.parsed.consumed;
                    if !pending.parsed.args.is_empty() {
                        pending.trace = self.trace.begin_command();
                        self.trace.parse();
                        count += 1;
                    }
                    if !self.session.authenticated {
                        // AUTH changes the limits for what follows.
                        break;
                    }
                }
                Ok(false) => break,
                Err(error) => return (count, at, Some(error)),
            }
        }
        (count, at, None)
    }

    /// Reads once; more than nothing, or the end.
    async fn read(&mut self) -> Result<(), ConnectionEnd> {
        self.input.reserve(READ_BYTES);
        let Connection { stream, input, client, registered, worker, .. } = self;
        let read = std::future::poll_fn(|context| {
            if !*registered {
                client.register(context.waker());
                *registered = true;
            }
            if client.is_killed() {
                return Poll::Ready(Err(killed(worker, client)));
            }
            match pin!(stream.read_buf(input)).poll(context) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(ConnectionEnd::ClientClosed)),
                Poll::Ready(Err(_)) => Poll::Ready(Err(ConnectionEnd::ConnectionLost)),
                Poll::Ready(Ok(bytes)) => Poll::Ready(Ok(bytes)),
                Poll::Pending => Poll::Pending,
            }
        });
        let bytes = read.await?;
        let stats = self.worker.stats();
        stats.bytes_received.add(bytes as u64);
        stats.socket_reads.add(1);
        self.tally.bytes_received += bytes as u64;
        Ok(())
    }

    /// Between two batches: what is kept small is given back.
    fn end_batch(&mut self) {
        self.held.clear();
        self.disk_slots.clear();
        self.client.query_buffer.store(self.input.len() as u64, Relaxed);
        self.client.last_active_ns.store(self.trace.mark().max(self.client.last_active_ns.load(Relaxed)), Relaxed);
        if self.input.is_empty() && self.input.capacity() > RETAINED_BYTES_MAX {
            self.input = BytesMut::new();
        }
        if self.output.capacity() > RETAINED_BYTES_MAX {
            self.output = Vec::new();
        }
        self.client.buffers.store((self.input.capacity() + self.output.capacity()) as u64, Relaxed);
        self.publish_labels();
    }

    /// Brings CLIENT LIST up to date, if something that it shows has changed.
    fn publish_labels(&mut self) {
        let (session, shown) = (&self.session, &mut self.shown);
        let resp = if session.protocol == ferrite_resp::Protocol::Resp3 { 3 } else { 2 };
        let multi = session.multi.as_ref().map_or(-1, |queue| queue.commands.len() as i64);
        let watching = session.watched.len();
        // The lock is for when something has changed: this runs after every batch.
        if (shown.database, shown.resp, shown.multi, shown.watching) == (session.db, resp, multi, watching)
            && (shown.no_evict, shown.no_touch) == (session.no_evict, session.no_touch)
            && std::ptr::eq(shown.last_command, session.last_command)
            && (&shown.name, &shown.lib_name, &shown.lib_ver) == (&session.name, &session.lib_name, &session.lib_ver)
        {
            return;
        }
        *shown = Labels {
            name: session.name.clone(),
            lib_name: session.lib_name.clone(),
            lib_ver: session.lib_ver.clone(),
            database: session.db,
            resp,
            last_command: session.last_command,
            multi,
            watching,
            no_evict: session.no_evict,
            no_touch: session.no_touch,
        };
        self.client.labels.lock().clone_from(shown);
    }

    /// The end of a batch: writes what is left and hands the batch's spans to the recorder.
    pub(crate) async fn finish_batch(&mut self) -> bool {
        let alive = self.flush().await;
        self.commit();
        alive
    }

    /// Writes the gathered replies once they may leave; the root spans of their commands end. False: the client cannot
    /// be written to.
    pub(crate) async fn flush(&mut self) -> bool {
        self.await_durable().await;
        let limit = self.worker.node.live.output_buffer_limit.load(Relaxed);
        if limit > 0 && self.output.len() as u64 > limit {
            let bytes = self.output.len();
            tracing::warn!(client = self.client.id, bytes, "a client exceeded its output buffer limit and is closed");
            self.output.clear();
            self.end = Some(ConnectionEnd::OutputBufferLimit);
            return false;
        }
        let mut alive = true;
        if !self.output.is_empty() {
            let result = self.write_while_reading().await;
            alive = result.is_ok();
            self.end = self.end.or(result.err());
            self.worker.stats().socket_writes.add(1);
            self.output.clear();
        }
        self.unanswered = 0;
        self.trace.net_write();
        alive
    }

    /// Writes the replies. A client may send a whole pipeline before it reads: while its replies find no room in the
    /// socket, what it sends is taken in, up to the query buffer's limit, or both sides would wait for ever.
    async fn write_while_reading(&mut self) -> Result<(), ConnectionEnd> {
        let Connection { stream, input, output, worker, client, tally, .. } = self;
        let input_max = worker.node.live.query_buffer_limit.load(Relaxed) as usize;
        let (mut written, mut received) = (0, 0);
        let result = std::future::poll_fn(|context| {
            while written < output.len() {
                match Pin::new(&mut *stream).poll_write(context, &output[written..]) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(ConnectionEnd::ConnectionLost)),
                    Poll::Ready(Ok(bytes)) => written += bytes,
                    Poll::Pending => {
                        if client.is_killed() {
                            return Poll::Ready(Err(killed(worker, client)));
                        }
                        if input.len() >= input_max {
                            return Poll::Pending;
                        }
                        input.reserve(READ_BYTES);
                        match pin!(stream.read_buf(input)).poll(context) {
                            // The end of its input, or an error: the write itself will tell.
                            Poll::Ready(Ok(0) | Err(_)) | Poll::Pending => return Poll::Pending,
                            Poll::Ready(Ok(bytes)) => received += bytes as u64,
                        }
                    }
                }
            }
            Pin::new(&mut *stream).poll_flush(context).map_err(|_| ConnectionEnd::ConnectionLost)
        })
        .await;
        let stats = worker.stats();
        stats.bytes_received.add(received);
        stats.bytes_sent.add(written as u64);
        tally.bytes_received += received;
        tally.bytes_sent += written as u64;
        result
    }

    /// Under `always` no reply leaves, a read's included, before the AOF is durable to where it was executed: what a
    /// client has seen, no crash takes back.
    async fn await_durable(&mut self) {
        let Some(aof) = self.worker.node.aof() else { return };
        if aof.policy() != ferrite_hybridlog::aof::FsyncPolicy::Always {
            self.syncs.clear();
            return;
        }
        let began_ns = self.worker.now_ns();
        let position = aof.position();
        if aof.durable() < position
            && let Err(error) = aof.wait_durable(position).await
        {
            self.output.clear();
            let text = format!("MISCONF Errors writing to the AOF file: {error}");
            for _ in 0..self.unanswered {
                Reply::new(&mut self.output, self.session.protocol).error(&text);
            }
            self.fail_unwritten(&text, &error);
        }
        let now = self.worker.now_ns();
        let mut last = None;
        for slot in self.syncs.drain(..) {
            self.trace.aof_sync_close(slot, now);
            last = Some(slot);
        }
        // The sync that ended while it was waited for is the one that was waited for, or the one behind it.
        let metrics = &self.worker.node.telemetry.metrics;
        if let Some(slot) = last
            && let Some(candidate) = metrics.disk_candidate(DiskWork::Sync, began_ns)
        {
            let subject = metrics.subject_of(DiskWork::Sync);
            self.trace.exemplar_of_sync(slot, subject, candidate.bucket, candidate.duration_ns);
        }
    }
}
