//! A connection that asks OTEL.TRACES, in RESP2.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ferrite_telemetry::Attribute;
use serde_json::Value;

use super::TraceRequest;
use super::tree;

/// A server that does not answer for as long is gone.
const ANSWER_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{host}:{port}: {error}")]
    Connect { host: String, port: u16, error: std::io::Error },
    #[error("the connection ended: {0}")]
    Io(#[from] std::io::Error),
    #[error("the server answers: {0}")]
    Refused(String),
    #[error("the server answers what is no OTEL.TRACES of this version: {0:?}")]
    Strange(String),
}

pub struct Client {
    stream: BufReader<TcpStream>,
    /// Its own questions are in the recorder, too.
    id: String,
}

impl Client {
    pub fn connect(request: &TraceRequest) -> Result<Self, ClientError> {
        let TraceRequest { host, port, .. } = request;
        let stream = TcpStream::connect((host.as_str(), *port)).map_err(|error| ClientError::Connect {
            host: host.clone(),
            port: *port,
            error,
        })?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut client = Self { stream: BufReader::new(stream), id: String::new() };
        if let Some(password) = &request.password {
            client.call(&["AUTH", password])?;
        }
        client.id = client.call(&["CLIENT", "ID"])?.concat();
        Ok(client)
    }

    /// The traces that OTEL.TRACES gives for these arguments, the newest first, but for those of this connection.
    pub fn traces(&mut self, words: &[String]) -> Result<Vec<Value>, ClientError> {
        let words = ["OTEL.TRACES"].into_iter().chain(words.iter().map(String::as_str)).chain(["JSON"]);
        let lines = self.call(&words.collect::<Vec<_>>())?;
        let mut traces = Vec::new();
        for line in lines {
            let trace: Value = serde_json::from_str(&line).map_err(|_| ClientError::Strange(line))?;
            if tree::root_attribute(&trace, Attribute::ConnectionId.as_str()).as_ref() != Some(&self.id) {
                traces.push(trace);
            }
        }
        Ok(traces)
    }

    /// The lines of an answer.
    fn call(&mut self, words: &[&str]) -> Result<Vec<String>, ClientError> {
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        self.stream.get_mut().write_all(request.as_bytes())?;
        let first = self.line()?;
        match first.split_at_checked(1) {
            Some(("*", count)) => {
                let count: usize = count.parse().map_err(|_| ClientError::Strange(first.clone()))?;
                (0..count).map(|_| self.line().map(|line| line.trim_start_matches('+').to_owned())).collect()
            }
            Some(("+" | ":", text)) => Ok(vec![text.to_owned()]),
            Some(("-", text)) => Err(ClientError::Refused(text.to_owned())),
            _ => Err(ClientError::Strange(first)),
        }
    }

    fn line(&mut self) -> Result<String, ClientError> {
        let mut line = Vec::new();
        // A line holds a whole trace: a thousand spans at most, with their attributes.
        (&mut self.stream).take(64 << 20).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        let line = String::from_utf8_lossy(&line);
        Ok(line.trim_end_matches('\r').to_owned())
    }
}
