//! Clients: the real `redis` crate over a simulated stream, and raw bytes for what a library cannot send.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use ferrite_io::{Network, World};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisResult, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::model::Command;
use crate::net::SimStream;
use crate::resp::{Reply, encode_command};
use crate::world::SimWorld;

/// Connects the `redis` crate. Its driver runs on the host whose task calls.
///
/// Both timeouts are off: the crate would take them from a real tokio runtime, which is not there. Wrap a call into
/// `madsim::time::timeout` instead.
pub async fn connect_redis(
    world: &SimWorld,
    address: SocketAddr,
    protocol: ProtocolVersion,
) -> RedisResult<MultiplexedConnection> {
    let stream = world.network().connect(address).await?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let info = RedisConnectionInfo::default().set_protocol(protocol);
    let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
    madsim::task::spawn_local(driver);
    Ok(connection)
}

/// A connection that sends what it is told and reads replies one by one.
pub struct RawClient {
    stream: SimStream,
    received: Vec<u8>,
}

impl RawClient {
    /// Connects.
    pub async fn connect(world: &SimWorld, address: SocketAddr) -> io::Result<Self> {
        Ok(Self { stream: world.network().connect(address).await?, received: Vec::new() })
    }

    /// Connects to a server that starts, as soon as it listens.
    pub async fn connect_when_up(world: &SimWorld, address: SocketAddr) -> Self {
        loop {
            match Self::connect(world, address).await {
                Ok(client) => return client,
                Err(_) => madsim::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// The answer to a command of words.
    ///
    /// # Panics
    /// If there is none.
    pub async fn ask(&mut self, line: &str) -> Reply {
        self.command(&line.split(' ').collect::<Vec<_>>()).await.expect("the server answers")
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads one reply. `UnexpectedEof` if the server closed first, `InvalidData` if it is no RESP.
    pub async fn read_reply(&mut self) -> io::Result<Reply> {
        loop {
            let parsed = Reply::parse(&self.received);
            match parsed.map_err(|why| io::Error::new(ErrorKind::InvalidData, why))? {
                Some((reply, len)) => {
                    self.received.drain(..len);
                    return Ok(reply);
                }
                None => {
                    if self.stream.read_buf(&mut self.received).await? == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }

    /// Sends one command and reads its reply.
    pub async fn command<W: AsRef<[u8]>>(&mut self, command: &[W]) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        encode_command(command, &mut bytes);
        self.send(&bytes).await?;
        self.read_reply().await
    }

    /// Ends this side's stream; replies can still be read.
    pub async fn half_close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads until the server closes; what came before.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.received);
        self.stream.read_to_end(&mut rest).await?;
        Ok(rest)
    }

    /// The stream itself, to reset it or to leave it unread.
    pub fn stream(&mut self) -> &mut SimStream {
        &mut self.stream
    }
}

/// Either kind of client, for scenarios that run with both.
pub enum Client {
    Library(MultiplexedConnection),
    Raw(RawClient),
}

impl Client {
    /// Sends commands as one pipeline and gives every reply that arrives, in order; without commands it does nothing. After an error the later commands
    /// are in doubt: the library loses all replies of a pipeline that it could not finish.
    ///
    /// The raw client writes everything before it reads, as redis-py does, whatever the buffers hold.
    pub async fn pipeline(&mut self, commands: &[Command], mut on_reply: impl FnMut(Reply)) -> io::Result<()> {
        if commands.is_empty() {
            return Ok(());
        }
        match self {
            Self::Library(connection) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    let mut with_arguments = Cmd::new();
                    command.iter().for_each(|word| {
                        with_arguments.arg(word.as_slice());
                    });
                    pipeline.add_command(with_arguments);
                }
                let sent = connection.send_packed_commands(&pipeline, 0, commands.len()).await;
                let values = sent.map_err(io::Error::other)?;
                assert_eq!(values.len(), commands.len(), "one reply a command");
                values.into_iter().map(Reply::from).for_each(on_reply);
            }
            Self::Raw(client) => {
                let mut bytes = Vec::new();
                commands.iter().for_each(|command| encode_command(command, &mut bytes));
                client.send(&bytes).await?;
                for _ in commands {
                    on_reply(client.read_reply().await?);
                }
            }
        }
        Ok(())
    }
}

/// What the library made of a reply, back in the form that the model speaks.
impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        let all = |values: Vec<Value>| values.into_iter().map(Self::from).collect();
        match value {
            Value::Nil => Self::Null,
            Value::Int(number) => Self::Int(number),
            Value::BulkString(bytes) => Self::Bulk(bytes),
            Value::Array(items) => Self::Array(all(items)),
            Value::SimpleString(text) => Self::Simple(text),
            Value::Okay => Self::ok(),
            Value::Map(pairs) => Self::Other('%', all(pairs.into_iter().flat_map(|(k, v)| [k, v]).collect())),
            Value::Set(items) => Self::Other('~', all(items)),
            Value::Double(number) => Self::Other(',', vec![Self::Simple(number.to_string())]),
            Value::Boolean(yes) => Self::Other('#', vec![Self::Simple(if yes { "t" } else { "f" }.to_string())]),
            Value::ServerError(error) => {
                let details = error.details().map(|details| format!(" {details}")).unwrap_or_default();
                Self::Error(format!("{}{details}", error.code()))
            }
            other => panic!("no command of the model is answered with {other:?}"),
        }
    }
}
