//! The reply writer: one set of methods, both protocols.

use crate::{Protocol, write_double};

/// The longest line of a number: its type, a sign, 19 digits, CR and LF.
const LINE_MAX: usize = 23;

/// Appends replies to an output buffer in the connection's protocol.
pub struct Reply<'a> {
    pub out: &'a mut Vec<u8>,
    pub protocol: Protocol,
}

impl<'a> Reply<'a> {
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// `+text`. CR and LF become spaces: a simple string is one line.
    pub fn simple(&mut self, text: impl AsRef<[u8]>) {
        self.line(b'+', text.as_ref());
    }

    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// `-text`, the code included: `ERR …`, `WRONGTYPE …`. CR and LF become spaces.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.line(b'-', text.as_ref());
    }

    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.number(b':', value);
    }

    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 16);
        self.bulk_len(bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Begins what is said about the reply that follows it; keys and values come next. RESP3 only.
    pub fn attributes(&mut self, pairs: usize) {
        self.number(b'|', pairs as i64);
    }

    /// Begins a bulk string of `len` bytes; they follow with [`Reply::raw`], and then `raw(b"\r\n")`.
    #[inline]
    pub fn bulk_len(&mut self, len: usize) {
        self.number(b'$', len as i64);
    }

    /// Bytes as they are: part of a bulk string, or a reply that is already encoded.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Nothing where a string could be.
    #[inline]
    pub fn null(&mut self) {
        self.pick(b"$-1\r\n", b"_\r\n");
    }

    /// Nothing where an array could be.
    #[inline]
    pub fn null_array(&mut self) {
        self.pick(b"*-1\r\n", b"_\r\n");
    }

    /// Begins an array of `len` elements.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.number(b'*', len as i64);
    }

    /// Begins a map of `pairs` keys, each followed by its value. RESP2 has only the flat array.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(2 * pairs),
            Protocol::Resp3 => self.number(b'%', pairs as i64),
        }
    }

    /// Begins a set of `len` elements; an array in RESP2.
    pub fn set(&mut self, len: usize) {
        self.aggregate(b'~', len);
    }

    /// Begins an out-of-band message of `len` elements; an array in RESP2.
    pub fn push(&mut self, len: usize) {
        self.aggregate(b'>', len);
    }

    /// A floating-point number; a bulk string in RESP2.
    pub fn double(&mut self, value: f64) {
        match self.protocol {
            Protocol::Resp2 => {
                let mut text = Vec::with_capacity(32);
                write_double(&mut text, value);
                self.bulk(&text);
            }
            Protocol::Resp3 => {
                self.out.push(b',');
                write_double(self.out, value);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// True or false; 1 or 0 in RESP2.
    pub fn boolean(&mut self, value: bool) {
        match value {
            true => self.pick(b":1\r\n", b"#t\r\n"),
            false => self.pick(b":0\r\n", b"#f\r\n"),
        }
    }

    /// Text with a three-letter format such as `txt`; a bulk string in RESP2.
    ///
    /// # Panics
    /// If `format` is not three bytes long: it is a constant of the caller.
    pub fn verbatim(&mut self, format: &str, bytes: &[u8]) {
        assert_eq!(format.len(), 3, "a verbatim string's format has three letters");
        match self.protocol {
            Protocol::Resp2 => self.bulk(bytes),
            Protocol::Resp3 => {
                self.number(b'=', (bytes.len() + 4) as i64);
                self.out.extend_from_slice(format.as_bytes());
                self.out.push(b':');
                self.out.extend_from_slice(bytes);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// A decimal integer of any size; a bulk string in RESP2.
    pub fn big_number(&mut self, digits: impl AsRef<[u8]>) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits.as_ref()),
            Protocol::Resp3 => self.line(b'(', digits.as_ref()),
        }
    }

    fn pick(&mut self, resp2: &[u8], resp3: &[u8]) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => resp2,
            Protocol::Resp3 => resp3,
        });
    }

    fn aggregate(&mut self, resp3: u8, len: usize) {
        let kind = match self.protocol {
            Protocol::Resp2 => b'*',
            Protocol::Resp3 => resp3,
        };
        self.number(kind, len as i64);
    }

    #[inline]
    fn number(&mut self, kind: u8, value: i64) {
        if let Ok(digit @ 0..=9) = u8::try_from(value) {
            self.out.extend_from_slice(&[kind, b'0' + digit, b'\r', b'\n']);
        } else {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(value).as_bytes();
            let mut line = [0; LINE_MAX];
            line[0] = kind;
            line[1..=digits.len()].copy_from_slice(digits);
            line[digits.len() + 1..digits.len() + 3].copy_from_slice(b"\r\n");
            self.out.extend_from_slice(&line[..digits.len() + 3]);
        }
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(kind);
        let start = self.out.len();
        self.out.extend_from_slice(text);
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut Reply<'_>)) -> (String, String) {
        let text = |protocol| {
            let mut out = Vec::new();
            write(&mut Reply::new(&mut out, protocol));
            String::from_utf8(out).expect("ASCII")
        };
        (text(Protocol::Resp2), text(Protocol::Resp3))
    }

    fn same(write: impl Fn(&mut Reply<'_>), expected: &str) {
        assert_eq!(both(write), (expected.to_owned(), expected.to_owned()));
    }

    fn differ(write: impl Fn(&mut Reply<'_>), resp2: &str, resp3: &str) {
        assert_eq!(both(write), (resp2.to_owned(), resp3.to_owned()));
    }

    #[test]
    fn what_both_protocols_write_alike() {
        same(|r| r.ok(), "+OK\r\n");
        same(|r| r.simple("PONG"), "+PONG\r\n");
        same(|r| r.error("ERR no\r\nway"), "-ERR no  way\r\n");
        same(|r| r.integer(7), ":7\r\n");
        same(|r| r.integer(-1), ":-1\r\n");
        same(|r| r.integer(i64::MIN), ":-9223372036854775808\r\n");
        same(|r| r.bulk(b""), "$0\r\n\r\n");
        same(|r| r.bulk(b"hello world"), "$11\r\nhello world\r\n");
        same(|r| r.array(12), "*12\r\n");
    }

    #[test]
    fn a_bulk_string_may_come_in_parts() {
        let parts = |r: &mut Reply<'_>| {
            r.bulk_len(4);
            r.raw(b"ab");
            r.raw(b"cd");
            r.raw(b"\r\n");
        };
        same(parts, "$4\r\nabcd\r\n");
    }

    #[test]
    fn what_resp2_writes_in_simpler_types() {
        differ(|r| r.null(), "$-1\r\n", "_\r\n");
        differ(|r| r.null_array(), "*-1\r\n", "_\r\n");
        differ(|r| r.map(3), "*6\r\n", "%3\r\n");
        differ(|r| r.set(3), "*3\r\n", "~3\r\n");
        differ(|r| r.push(3), "*3\r\n", ">3\r\n");
        differ(|r| r.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
        differ(|r| r.double(f64::INFINITY), "$3\r\ninf\r\n", ",inf\r\n");
        differ(|r| r.boolean(true), ":1\r\n", "#t\r\n");
        differ(|r| r.boolean(false), ":0\r\n", "#f\r\n");
        differ(|r| r.verbatim("txt", b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
        differ(
            |r| r.big_number("123456789012345678901"),
            "$21\r\n123456789012345678901\r\n",
            "(123456789012345678901\r\n",
        );
    }
}
