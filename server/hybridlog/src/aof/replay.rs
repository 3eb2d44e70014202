//! Reading a segment back: every intact frame in order, then the verdict on what follows the last one.

use std::io;

use ferrite_io::{AlignedBuf, File};
use thiserror::Error;

use super::effect::{DecodeError, Effect, Effects};
use super::frame::{HEADER, Header, Kind};
use super::segment::{HEADER_LEN, SECTOR, SegmentHeader, next_sector};

/// What a segment held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// After the last frame: in the log, and in the file.
    pub position: u64,
    pub end: u64,
    /// File offset of the last mark, or of the first frame: what is before it was durable.
    pub marked: u64,
    /// Of those that were applied.
    pub frames: u64,
    pub effects: u64,
    /// Bytes after `end` up to the last that is not zero: a torn tail.
    pub torn: u64,
}

#[derive(Debug, Error)]
pub(crate) enum ReplayError<E> {
    #[error("reading at offset {offset}: {source}")]
    Read { offset: u64, source: io::Error },
    /// Nothing intact is at `offset` and `position`, and it was durable up to `durable`.
    #[error("damaged at offset {offset}")]
    Corrupt { offset: u64, position: u64, durable: u64 },
    #[error("offset {offset}: {source}")]
    Decode { offset: u64, source: DecodeError },
    #[error("offset {offset}: {source}")]
    Apply { offset: u64, source: E },
}

/// Which part of a segment is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extent {
    /// Frames below this position are read, and not applied.
    pub apply_from: u64,
    /// A position known from elsewhere to have been durable.
    pub durable: u64,
    /// The segment was sealed at `durable`: whatever follows is none of its frames.
    pub sealed: bool,
}

/// Reads the frames of a segment whose header was read, and applies each effect. `read_len` is how many bytes are read at a
/// time, a multiple of the block.
pub(crate) async fn replay<F: File, E>(
    file: &F,
    header: SegmentHeader,
    extent: Extent,
    read_len: usize,
    apply: &mut impl AsyncFnMut(Effect<'_>) -> Result<(), E>,
) -> Result<Replayed, ReplayError<E>> {
    let mut window = Window::open(file, read_len).await?;
    let mut seen = Replayed { position: header.base, end: HEADER_LEN, marked: HEADER_LEN, ..Replayed::default() };
    loop {
        if extent.sealed && seen.position >= extent.durable {
            return Ok(seen);
        }
        match window.header(seen.end, header.salt).await?.filter(|next| next.position == seen.position) {
            Some(Header { kind: Kind::Mark, .. }) => {
                seen.marked = seen.end;
                seen.end += HEADER as u64;
            }
            Some(next) => {
                let offset = seen.end;
                let Some(payload) = window.get(offset + HEADER as u64, next.len).await? else { break };
                if !next.payload_is_intact(payload) {
                    break;
                }
                if seen.position >= extent.apply_from {
                    for effect in Effects::new(payload) {
                        let effect = effect.map_err(|source| ReplayError::Decode { offset, source })?;
                        apply(effect).await.map_err(|source| ReplayError::Apply { offset, source })?;
                        seen.effects += 1;
                    }
                    seen.frames += 1;
                }
                seen.end += next.frame_len();
                seen.position += next.frame_len();
            }
            None => {
                // A group may have ended here: then the next one starts with a mark at the next sector.
                let sector = next_sector(seen.end);
                let next = window.header(sector, header.salt).await?;
                if sector == seen.end || next != Some(Header::mark(seen.position)) {
                    break;
                }
                seen.end = sector;
            }
        }
    }
    let tail = window.tail(seen.end, header.salt).await?;
    let durable = extent.durable.max(tail.marked);
    if durable > seen.position {
        return Err(ReplayError::Corrupt { offset: seen.end, position: seen.position, durable });
    }
    seen.torn = tail.end - seen.end;
    Ok(seen)
}

/// What lies behind the last intact frame.
struct Tail {
    /// Highest position of a mark, 0 without one.
    marked: u64,
    /// After the last byte that is not zero.
    end: u64,
}

/// A part of the file that moves forward over it.
struct Window<'a, F> {
    file: &'a F,
    file_len: u64,
    read_len: usize,
    start: u64,
    bytes: Vec<u8>,
    spare: Option<AlignedBuf>,
}

impl<'a, F: File> Window<'a, F> {
    async fn open<E>(file: &'a F, read_len: usize) -> Result<Self, ReplayError<E>> {
        let file_len = file.len().await.map_err(|source| ReplayError::Read { offset: 0, source })?;
        Ok(Self { file, file_len, read_len, start: 0, bytes: Vec::new(), spare: None })
    }

    /// `len` bytes at `offset`; None where the file is shorter.
    async fn get<E>(&mut self, offset: u64, len: u64) -> Result<Option<&[u8]>, ReplayError<E>> {
        if offset.checked_add(len).is_none_or(|end| end > self.file_len) {
            return Ok(None);
        }
        if offset < self.start || offset > self.start + self.bytes.len() as u64 {
            self.start = offset;
            self.bytes.clear();
        }
        while self.start + (self.bytes.len() as u64) < offset + len {
            self.bytes.drain(..(offset - self.start) as usize);
            self.start = offset;
            self.read_on().await?;
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.bytes[from..from + len as usize]))
    }

    async fn read_on<E>(&mut self) -> Result<(), ReplayError<E>> {
        let offset = self.start + self.bytes.len() as u64;
        let buf = self.spare.take().unwrap_or_else(|| AlignedBuf::zeroed(self.read_len));
        let done = self.file.read_at(buf, offset).await;
        let read = done.result.and_then(|read| match read {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        });
        self.bytes.extend_from_slice(&done.buf[..read.map_err(|source| ReplayError::Read { offset, source })?]);
        self.spare = Some(done.buf);
        Ok(())
    }

    async fn header<E>(&mut self, offset: u64, salt: u64) -> Result<Option<Header>, ReplayError<E>> {
        let bytes = self.get(offset, HEADER as u64).await?;
        Ok(bytes.and_then(|bytes| Header::decode(bytes.as_array()?, salt)))
    }

    /// Looks through everything from `from` on. A mark always begins a sector.
    async fn tail<E>(&mut self, from: u64, salt: u64) -> Result<Tail, ReplayError<E>> {
        let mut tail = Tail { marked: 0, end: from };
        let mut at = from;
        while at < self.file_len {
            let len = (next_sector(at + 1) - at).min(self.file_len - at);
            let bytes = self.get(at, len).await?.expect("within the file");
            if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
                tail.end = at + last as u64 + 1;
                let header = bytes.first_chunk().and_then(|bytes| Header::decode(bytes, salt));
                if at.is_multiple_of(SECTOR) && header.is_some_and(|header| header.kind == Kind::Mark) {
                    tail.marked = tail.marked.max(header.map_or(0, |header| header.position));
                }
            }
            at += len;
        }
        Ok(tail)
    }
}
