//! A raw RESP connection: commands as byte strings, replies as the exact bytes that came.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A reply that takes longer is a failure of the server.
const REPLY_MAX: Duration = Duration::from_secs(20);

pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_MAX))?;
        Ok(Connection { reader: BufReader::new(stream) })
    }

    /// Sends one command and returns its whole reply.
    pub fn call(&mut self, args: &[impl AsRef<[u8]>]) -> io::Result<Vec<u8>> {
        self.send(&encode(args))?;
        self.reply()
    }

    /// Sends all commands at once, then reads as many replies.
    pub fn pipeline(&mut self, commands: &[Vec<Vec<u8>>]) -> io::Result<Vec<Vec<u8>>> {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        self.send(&bytes)?;
        commands.iter().map(|_| self.reply()).collect()
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.reader.get_ref().shutdown(Shutdown::Write)
    }

    /// Everything until the server closes the connection.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// So many bytes, whatever they mean.
    pub fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads one reply with all that is nested in it.
    pub fn reply(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_value(&mut bytes)?;
        Ok(bytes)
    }

    fn read_value(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        let start = into.len();
        if self.reader.read_until(b'\n', into)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = &into[start..];
        let length = || -> io::Result<i64> {
            std::str::from_utf8(&line[1..])
                .ok()
                .and_then(|text| text.trim_end().parse().ok())
                .ok_or_else(|| io::Error::other(format!("bad length in {:?}", String::from_utf8_lossy(line))))
        };
        match line[0] {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Ok(()),
            b'$' | b'=' | b'!' => match length()? {
                -1 => Ok(()),
                bytes => {
                    let end = into.len() + bytes as usize + 2;
                    let from = into.len();
                    into.resize(end, 0);
                    self.reader.read_exact(&mut into[from..])
                }
            },
            b'*' | b'~' | b'>' => (0..length()?.max(0)).try_for_each(|_| self.read_value(into)),
            b'%' => (0..2 * length()?).try_for_each(|_| self.read_value(into)),
            // An attribute stands before the value it belongs to.
            b'|' => (0..2 * length()? + 1).try_for_each(|_| self.read_value(into)),
            other => Err(io::Error::other(format!("unknown reply type {:?}", other as char))),
        }
    }
}

/// A command in RESP.
pub fn encode(args: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The elements of an array or set reply, each as its own bytes; `None` if the reply is something else.
pub fn elements(reply: &[u8]) -> Option<Vec<Vec<u8>>> {
    if !matches!(reply.first(), Some(b'*' | b'~')) {
        return None;
    }
    let header = reply.iter().position(|&byte| byte == b'\n')? + 1;
    let count: usize = std::str::from_utf8(&reply[1..header]).ok()?.trim_end().parse().ok()?;
    let mut rest = &reply[header..];
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        let line = rest.iter().position(|&byte| byte == b'\n')? + 1;
        let length = match rest[0] {
            b'$' => match std::str::from_utf8(&rest[1..line]).ok()?.trim_end().parse::<i64>().ok()? {
                -1 => line,
                bytes => line + bytes as usize + 2,
            },
            b'+' | b':' | b'_' | b'-' => line,
            _ => return None,
        };
        found.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    Some(found)
}
