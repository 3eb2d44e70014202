//! The request parser: incremental, zero-copy, indifferent to how the network split the bytes.

use std::mem;

use crate::number::parse_i64;
use crate::{ArgRange, Parsed, ProtocolError, inline};

/// Attribute pairs that may precede one command. A trace context and baggage are two; the rest is room.
pub const MAX_ATTRIBUTES: usize = 64;

/// Longest attribute key or value in bytes: what Redis lets an unauthenticated client send, so that attributes,
/// which are read before AUTH, need no second limit. Twice the 8 KiB that W3C Baggage asks for.
pub const MAX_ATTRIBUTE_LEN: usize = UNAUTHENTICATED_BULK_LEN;

/// What a client may send before it authenticated, as in Redis.
const UNAUTHENTICATED_ARGS: usize = 10;
const UNAUTHENTICATED_BULK_LEN: usize = 16 * 1024;

/// Arguments for which room is made on the word of a count alone; more comes as they arrive.
const RESERVED_ARGS: usize = 1024;

/// What a connection may send; the configuration sets it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `proto-max-bulk-len`, in bytes.
    pub max_bulk_len: usize,
    /// Arguments of one command.
    pub max_args: usize,
    /// Longest inline request, and longest line that holds a count or length, in bytes.
    pub max_inline: usize,
    /// False while a password is required and was not yet given: 10 arguments of 16 KiB at most.
    pub authenticated: bool,
}

impl Default for Limits {
    /// Redis's defaults.
    fn default() -> Self {
        Self {
            max_bulk_len: 512 * 1024 * 1024,
            max_args: i32::MAX as usize,
            max_inline: 64 * 1024,
            authenticated: true,
        }
    }
}

/// Finds commands in a connection's input. Keeps its place in a half-received command, so nothing is scanned twice.
#[derive(Debug, Default)]
pub struct Parser {
    stage: Stage,
    /// Everything before it, counted from the start of the command, is understood.
    pos: usize,
    /// Up to here no line end was found. Only meaningful beyond `pos`.
    scanned: usize,
    /// Bulk strings still to come in this stage.
    remaining: usize,
    /// Length of the bulk string at `pos`, once its length line was read.
    bulk_len: Option<usize>,
    /// Key whose value comes next.
    attribute_key: Option<ArgRange>,
    /// What was found of a half-received command, between two calls.
    partial: Parsed,
    resuming: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Before the first byte of a command or of its first attribute.
    #[default]
    Start,
    /// After an attribute: another one or a multibulk command.
    AfterAttribute,
    /// Among an attribute's keys and values.
    Attribute,
    /// Among a command's arguments.
    Arguments,
}

/// A count or length line: its number if it is one, and the offset after its end.
struct Line {
    value: Option<i64>,
    next: usize,
}

impl Parser {
    /// Looks for the next command at the start of `input`.
    ///
    /// True: `into` holds a whole command; drop `into.consumed` bytes before the next call. Its `args` may be empty
    /// (a blank inline line, `*0`): nothing is to be answered then. False: more input is needed; call again with the
    /// same bytes, followed by more, at the start of `input`.
    ///
    /// After an error the connection's input cannot be understood any more: answer it and close.
    pub fn parse(&mut self, input: &[u8], limits: &Limits, into: &mut Parsed) -> Result<bool, ProtocolError> {
        if mem::take(&mut self.resuming) {
            mem::swap(&mut self.partial, into);
        } else {
            into.clear();
            if whole(input, limits, into) {
                return Ok(true);
            }
        }
        if self.advance(input, limits, into)? {
            into.consumed = self.pos;
            self.stage = Stage::Start;
            self.pos = 0;
            self.scanned = 0;
            return Ok(true);
        }
        mem::swap(&mut self.partial, into);
        into.clear();
        self.resuming = true;
        Ok(false)
    }

    fn advance(&mut self, input: &[u8], limits: &Limits, into: &mut Parsed) -> Result<bool, ProtocolError> {
        loop {
            match self.stage {
                Stage::Start | Stage::AfterAttribute => {
                    let whole = match input.get(self.pos) {
                        None => return Ok(false),
                        Some(b'*') => self.command_count(input, limits, into)?,
                        Some(b'|') => self.attribute_count(input, limits, into)?,
                        Some(&other) if self.stage == Stage::AfterAttribute => {
                            return Err(ProtocolError::ExpectedCommand(other));
                        }
                        Some(_) => return self.inline(input, limits, into),
                    };
                    if !whole {
                        return Ok(false);
                    }
                }
                Stage::Attribute if self.remaining == 0 => self.stage = Stage::AfterAttribute,
                Stage::Attribute => {
                    let Some(range) = self.attribute_string(input, limits)? else {
                        return Ok(false);
                    };
                    match self.attribute_key.take() {
                        None => self.attribute_key = Some(range),
                        Some(key) => into.attributes.push((key, range)),
                    }
                }
                Stage::Arguments if self.remaining == 0 => return Ok(true),
                Stage::Arguments => {
                    let Some(range) = self.argument(input, limits)? else {
                        return Ok(false);
                    };
                    into.args.push(range);
                }
            }
        }
    }

    fn command_count(&mut self, input: &[u8], limits: &Limits, into: &mut Parsed) -> Result<bool, ProtocolError> {
        let Some(line) = self.line(input, limits, ProtocolError::TooBigMultibulkCount)? else {
            return Ok(false);
        };
        // A negative count is an empty command, as in Redis.
        let count = line.value.map(|value| usize::try_from(value).unwrap_or(0));
        let count = count.filter(|&count| count <= limits.max_args).ok_or(ProtocolError::InvalidMultibulkLength)?;
        if count > UNAUTHENTICATED_ARGS && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        into.args.reserve(count.min(RESERVED_ARGS));
        self.enter(Stage::Arguments, count, line.next);
        Ok(true)
    }

    fn attribute_count(&mut self, input: &[u8], limits: &Limits, into: &mut Parsed) -> Result<bool, ProtocolError> {
        let Some(line) = self.line(input, limits, ProtocolError::TooBigAttributeCount)? else {
            return Ok(false);
        };
        let pairs = line.value.and_then(|value| usize::try_from(value).ok());
        let pairs = pairs
            .filter(|&pairs| pairs <= MAX_ATTRIBUTES - into.attributes.len())
            .ok_or(ProtocolError::InvalidAttributeCount)?;
        self.enter(Stage::Attribute, 2 * pairs, line.next);
        Ok(true)
    }

    fn enter(&mut self, stage: Stage, bulks: usize, pos: usize) {
        self.stage = stage;
        self.remaining = bulks;
        self.pos = pos;
    }

    fn argument(&mut self, input: &[u8], limits: &Limits) -> Result<Option<ArgRange>, ProtocolError> {
        if self.bulk_len.is_none() {
            let Some(line) = self.line(input, limits, ProtocolError::TooBigBulkCount)? else {
                return Ok(None);
            };
            if input[self.pos] != b'$' {
                return Err(ProtocolError::ExpectedBulk(input[self.pos]));
            }
            let len = length(line.value, limits.max_bulk_len).ok_or(ProtocolError::InvalidBulkLength)?;
            if len > UNAUTHENTICATED_BULK_LEN && !limits.authenticated {
                return Err(ProtocolError::UnauthenticatedBulkLength);
            }
            self.bulk_len = Some(len);
            self.pos = line.next;
        }
        Ok(self.bulk(input))
    }

    fn attribute_string(&mut self, input: &[u8], limits: &Limits) -> Result<Option<ArgRange>, ProtocolError> {
        if self.bulk_len.is_none() {
            let too_long = ProtocolError::InvalidAttributeLength;
            let Some(line) = self.line(input, limits, too_long)? else {
                return Ok(None);
            };
            if input[self.pos] != b'$' {
                return Err(ProtocolError::ExpectedAttributeBulk(input[self.pos]));
            }
            self.bulk_len = Some(length(line.value, MAX_ATTRIBUTE_LEN).ok_or(too_long)?);
            self.pos = line.next;
        }
        Ok(self.bulk(input))
    }

    /// The bulk string at `pos`, if it is there with its line end. Like Redis, does not look at the line end.
    #[inline]
    fn bulk(&mut self, input: &[u8]) -> Option<ArgRange> {
        let len = self.bulk_len?;
        if input.len() - self.pos < len.saturating_add(2) {
            return None;
        }
        let range = self.pos..self.pos + len;
        self.pos = range.end + 2;
        self.remaining -= 1;
        self.bulk_len = None;
        Some(range)
    }

    /// The line at `pos`: a type byte, a number, CR and any byte. None while its end has not arrived.
    #[inline]
    fn line(&mut self, input: &[u8], limits: &Limits, too_long: ProtocolError) -> Result<Option<Line>, ProtocolError> {
        if let Some(line) = short_line(input, self.pos) {
            return Ok(Some(line));
        }
        let from = self.scanned.max(self.pos);
        let end = memchr::memchr(b'\r', &input[from..]).map(|offset| from + offset);
        // Counted the same with and without the end in sight, so that a split changes nothing.
        if end.unwrap_or(input.len()) - self.pos > limits.max_inline {
            return Err(too_long);
        }
        self.scanned = end.unwrap_or(input.len());
        Ok(end
            .filter(|end| end + 1 < input.len())
            .map(|end| Line { value: input.get(self.pos + 1..end).and_then(parse_i64), next: end + 2 }))
    }

    fn inline(&mut self, input: &[u8], limits: &Limits, into: &mut Parsed) -> Result<bool, ProtocolError> {
        let end = memchr::memchr(b'\n', &input[self.scanned..]).map(|offset| self.scanned + offset);
        if end.unwrap_or(input.len()) > limits.max_inline {
            return Err(ProtocolError::TooBigInline);
        }
        self.scanned = end.unwrap_or(input.len());
        let Some(end) = end else { return Ok(false) };
        let line = &input[..end];
        inline::split(line.strip_suffix(b"\r").unwrap_or(line), 0, into)?;
        self.pos = end + 1;
        Ok(true)
    }
}

fn length(value: Option<i64>, max: usize) -> Option<usize> {
    value.and_then(|value| usize::try_from(value).ok()).filter(|&len| len <= max)
}

/// The command at the start of `input`, if it has arrived whole and is plain: what nearly all are. What is not, the
/// parser takes up from its start.
#[inline]
fn whole(input: &[u8], limits: &Limits, into: &mut Parsed) -> bool {
    let plain = (|| {
        let line = short_line(input, 0).filter(|_| input[0] == b'*')?;
        let count = length(line.value, limits.max_args.min(RESERVED_ARGS)).filter(|_| limits.authenticated)?;
        let mut pos = line.next;
        for _ in 0..count {
            let line = short_line(input, pos).filter(|_| input[pos] == b'$')?;
            let len = length(line.value, limits.max_bulk_len)?;
            if input.len() - line.next < len.saturating_add(2) {
                return None;
            }
            into.args.push(line.next..line.next + len);
            pos = line.next + len + 2;
        }
        Some(pos)
    })();
    match plain {
        Some(consumed) => into.consumed = consumed,
        None => into.args.clear(),
    }
    plain.is_some()
}

/// The line at `pos` if it is complete and has a number of one to six digits, which nearly every line has.
#[inline]
fn short_line(input: &[u8], pos: usize) -> Option<Line> {
    let digits = input.get(pos + 1..)?;
    let mut value = 0;
    for (count, &byte) in digits.iter().take(7).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            value = value * 10 + i64::from(digit);
        } else {
            let plain = byte == b'\r' && count > 0 && (count == 1 || digits[0] != b'0');
            return (plain && count + 1 < digits.len())
                .then_some(Line { value: Some(value), next: pos + 1 + count + 2 });
        }
    }
    None
}
