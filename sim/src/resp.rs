//! RESP as a client needs it: commands out, replies in. Written apart from the server's codec, so that a mistake there
//! is not repeated here.

use std::fmt;

/// A reply, RESP2 or RESP3.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` and `_`.
    Null,
    Array(Vec<Reply>),
    /// Every other RESP3 type, by its type byte and its parts or its text.
    Other(char, Vec<Reply>),
}

impl Reply {
    /// `+OK`.
    pub fn ok() -> Self {
        Self::Simple("OK".to_string())
    }

    /// The reply in RESP2, for servers of the simulator's own.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Simple(text) => line(out, '+', text),
            Self::Error(text) => line(out, '-', text),
            Self::Int(number) => line(out, ':', number),
            Self::Bulk(bytes) => bulk(out, bytes),
            Self::Null => out.extend(b"$-1\r\n"),
            Self::Array(items) | Self::Other(_, items) => {
                line(out, '*', items.len());
                items.iter().for_each(|item| item.encode(out));
            }
        }
    }

    /// Parses one reply from the start of `bytes`: the reply and its length, or `None` if it is not complete.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let mut parser = Parser { bytes, at: 0 };
        match parser.reply() {
            Ok(reply) => Ok(Some((reply, parser.at))),
            Err(Stop::Incomplete) => Ok(None),
            Err(Stop::Malformed(why)) => Err(why),
        }
    }
}

/// Payloads as text where they are text, and shortened: for failure reports.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Int(number) => write!(f, ":{number}"),
            Self::Bulk(bytes) => write!(f, "{}", Shown(bytes)),
            Self::Null => write!(f, "null"),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Other(kind, items) => write!(f, "{kind}{items:?}"),
        }
    }
}

/// Bytes for a reader: escaped, and cut after 32 with their length and hash.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= 32 {
            return write!(f, "\"{}\"", self.0.escape_ascii());
        }
        let hash = crate::log::StableHasher::of(self.0);
        write!(f, "\"{}\"… ({} bytes, hash {hash:016x})", self.0[..32].escape_ascii(), self.0.len())
    }
}

/// A command for a reader.
pub fn show_command(command: &[Vec<u8>]) -> String {
    let words: Vec<String> = command.iter().map(|word| Shown(word).to_string()).collect();
    words.join(" ")
}

fn line(out: &mut Vec<u8>, kind: char, text: impl fmt::Display) {
    out.extend(format!("{kind}{text}\r\n").as_bytes());
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    line(out, '$', bytes.len());
    out.extend(bytes);
    out.extend(b"\r\n");
}

/// A command as an array of bulk strings.
pub fn encode_command<W: AsRef<[u8]>>(command: &[W], out: &mut Vec<u8>) {
    line(out, '*', command.len());
    for word in command {
        bulk(out, word.as_ref());
    }
}

enum Stop {
    Incomplete,
    Malformed(String),
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn line(&mut self) -> Result<&str, Stop> {
        let rest = &self.bytes[self.at..];
        let end = rest.windows(2).position(|pair| pair == b"\r\n").ok_or(Stop::Incomplete)?;
        self.at += end + 2;
        std::str::from_utf8(&rest[..end]).map_err(|_| Stop::Malformed("a line is not UTF-8".to_string()))
    }

    fn number(&mut self) -> Result<i64, Stop> {
        let text = self.line()?;
        text.parse().map_err(|_| Stop::Malformed(format!("not a number: {text:?}")))
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, Stop> {
        let end = self.at + len;
        let bytes = self.bytes.get(self.at..end).ok_or(Stop::Incomplete)?.to_vec();
        match self.bytes.get(end..end + 2) {
            Some(b"\r\n") => self.at = end + 2,
            Some(_) => {
                return Err(Stop::Malformed("a bulk string does not end with CR LF".to_string()));
            }
            None => return Err(Stop::Incomplete),
        }
        Ok(bytes)
    }

    fn items(&mut self, count: i64) -> Result<Vec<Reply>, Stop> {
        (0..count).map(|_| self.reply()).collect()
    }

    fn reply(&mut self) -> Result<Reply, Stop> {
        let kind = *self.bytes.get(self.at).ok_or(Stop::Incomplete)? as char;
        self.at += 1;
        match kind {
            '+' => Ok(Reply::Simple(self.line()?.to_string())),
            '-' => Ok(Reply::Error(self.line()?.to_string())),
            ':' => Ok(Reply::Int(self.number()?)),
            '_' => self.line().map(|_| Reply::Null),
            '$' | '*' => match (self.number()?, kind) {
                (-1, _) => Ok(Reply::Null),
                (len, '$') => Ok(Reply::Bulk(self.take(len as usize)?)),
                (count, _) => Ok(Reply::Array(self.items(count)?)),
            },
            '=' | '!' => {
                let len = self.number()? as usize;
                Ok(Reply::Other(kind, vec![Reply::Bulk(self.take(len)?)]))
            }
            ',' | '#' | '(' => Ok(Reply::Other(kind, vec![Reply::Simple(self.line()?.to_string())])),
            '~' | '>' => {
                let count = self.number()?;
                Ok(Reply::Other(kind, self.items(count)?))
            }
            '%' | '|' => {
                let pairs = self.number()?;
                Ok(Reply::Other(kind, self.items(2 * pairs)?))
            }
            other => Err(Stop::Malformed(format!("no reply starts with {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_parsed_once_its_last_byte_is_there() {
        let bytes = b"*4\r\n$3\r\na\r\n\r\n:-5\r\n$-1\r\n+OK\r\n";
        for len in 0..bytes.len() {
            assert_eq!(Reply::parse(&bytes[..len]), Ok(None), "{len} bytes");
        }
        let items = vec![Reply::Bulk(b"a\r\n".to_vec()), Reply::Int(-5), Reply::Null, Reply::ok()];
        assert_eq!(Reply::parse(bytes), Ok(Some((Reply::Array(items.clone()), bytes.len()))));
        let mut encoded = Vec::new();
        Reply::Array(items).encode(&mut encoded);
        assert_eq!(encoded, bytes);
    }

    #[test]
    fn resp3_types_are_read_and_nonsense_is_not() {
        let map = b"%1\r\n+a\r\n#t\r\n";
        let (reply, len) = Reply::parse(map).expect("well-formed").expect("complete");
        assert_eq!((len, format!("{reply:?}").as_str()), (map.len(), "%[+a, #[+t]]"));
        assert!(Reply::parse(b"$2\r\nabc\r\n").is_err());
        assert!(Reply::parse(b"?").is_err());
    }
}
