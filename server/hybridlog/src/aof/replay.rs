//! Reading a segment back: every intact frame in order, then the verdict on what follows the last one.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;

use ferrite_io::{AlignedBuf, Done, File};
use futures_util::future::{MaybeDone, maybe_done};
use thiserror::Error;

use super::begin::mark_before;
use super::effect::{DecodeError, Effects};
use super::frame::{HEADER, Header, Kind};
use super::segment::{HEADER_LEN, SECTOR, SegmentHeader, next_sector};
use crate::datadir::{READINGS_MAX, Recover, unsteady};
use crate::planted::Planted;

/// What a segment held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// File offset from which on it was read: what is before it was not wanted.
    pub begin: u64,
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

/// A frame whose effects are to be applied.
struct Frame {
    offset: u64,
    len: u64,
}

/// Frames that are applied together at most.
const FRAMES_MAX: usize = 1024;

/// Reads the frames of a segment whose header was read, and applies each effect. `read_len` is how many bytes are read at a
/// time, a multiple of the block.
pub(crate) async fn replay<F: File, R: Recover>(
    file: &F,
    header: SegmentHeader,
    extent: Extent,
    read_len: usize,
    recover: &mut R,
) -> Result<Replayed, ReplayError<R::Error>> {
    let mut window = Window::open(file, read_len).await?;
    let (begin, position) =
        mark_before(file, window.file_len, header, extent.apply_from).await.unwrap_or((HEADER_LEN, header.base));
    let mut seen = Replayed { begin, position, end: begin, marked: begin, ..Replayed::default() };
    let mut frames = Vec::new();
    let mut doubt = Doubt::default();
    loop {
        frames.clear();
        let more = gather(&mut window, header.salt, extent, &mut seen, &mut frames).await?;
        seen.effects += apply(&window, &frames, recover).await?;
        seen.frames += frames.len() as u64;
        match more {
            Next::Frames => {}
            Next::End => return Ok(seen),
            Next::Tail => {
                let tail = window.tail(seen.end, header.salt).await?;
                let durable = extent.durable.max(tail.marked);
                seen.torn = tail.end - seen.end;
                let is_whole = durable <= seen.position && seen.torn == 0;
                if !is_whole && !doubt.is_over((seen.end, tail.crc))? {
                    window.forget();
                    continue;
                }
                return match durable > seen.position {
                    true => Err(ReplayError::Corrupt { offset: seen.end, position: seen.position, durable }),
                    false => Ok(seen),
                };
            }
        }
    }
}

/// Whether what is no frame lies on the disk like that. It will be cut off, or stop the start: so it is read again until two
/// readings in a row are the same, and what is a frame by then is one.
#[derive(Default)]
struct Doubt {
    /// Where the last reading began, and its checksum.
    before: Option<(u64, u32)>,
    readings: usize,
}

impl Doubt {
    fn is_over<E>(&mut self, reading: (u64, u32)) -> Result<bool, ReplayError<E>> {
        self.readings += 1;
        let is_over = self.before == Some(reading) || Planted::TornAtOneLook.is_there();
        self.before = Some(reading);
        match is_over || self.readings < READINGS_MAX {
            true => Ok(is_over),
            false => Err(ReplayError::Read { offset: reading.0, source: unsteady() }),
        }
    }
}

/// What comes after the frames that were gathered.
enum Next {
    /// Perhaps further ones.
    Frames,
    /// Nothing that is wanted.
    End,
    /// No intact frame.
    Tail,
}

/// Checks the next frames, as many as the window holds and one in any case, and notes those that are to be applied.
async fn gather<F: File, E>(
    window: &mut Window<'_, F>,
    salt: u64,
    extent: Extent,
    seen: &mut Replayed,
    frames: &mut Vec<Frame>,
) -> Result<Next, ReplayError<E>> {
    loop {
        if extent.sealed && seen.position >= extent.durable {
            return Ok(Next::End);
        }
        // What was gathered stays in the window until it is applied.
        if frames.len() == FRAMES_MAX || !frames.is_empty() && !window.holds(seen.end, HEADER as u64) {
            return Ok(Next::Frames);
        }
        match window.header(seen.end, salt).await?.filter(|next| next.position == seen.position) {
            Some(Header { kind: Kind::Mark, .. }) => {
                seen.marked = seen.end;
                seen.end += HEADER as u64;
            }
            Some(next) => {
                let payload_at = seen.end + HEADER as u64;
                if !frames.is_empty() && !window.holds(payload_at, next.len) {
                    return Ok(Next::Frames);
                }
                let Some(payload) = window.get(payload_at, next.len).await? else { return Ok(Next::Tail) };
                if !next.payload_is_intact(payload) {
                    return Ok(Next::Tail);
                }
                if seen.position >= extent.apply_from {
                    frames.push(Frame { offset: seen.end, len: next.len });
                }
                seen.end += next.frame_len();
                seen.position += next.frame_len();
            }
            None if !frames.is_empty() => return Ok(Next::Frames),
            None => {
                // A group may have ended here: then the next one starts with a mark at the next sector.
                let sector = next_sector(seen.end);
                let next = window.header(sector, salt).await?;
                if sector == seen.end || next != Some(Header::mark(seen.position)) {
                    return Ok(Next::Tail);
                }
                seen.end = sector;
            }
        }
    }
}

/// Applies the effects of frames that the window holds. How many there were.
async fn apply<F: File, R: Recover>(
    window: &Window<'_, F>,
    frames: &[Frame],
    recover: &mut R,
) -> Result<u64, ReplayError<R::Error>> {
    if frames.is_empty() {
        return Ok(0);
    }
    let mut effects = Vec::with_capacity(frames.len());
    // How many there are up to the end of each frame.
    let mut ends = Vec::with_capacity(frames.len());
    for &Frame { offset, len } in frames {
        for effect in Effects::new(window.held(offset + HEADER as u64, len)) {
            effects.push(effect.map_err(|source| ReplayError::Decode { offset, source })?);
        }
        ends.push(effects.len());
    }
    recover.apply(&effects).await.map_err(|(at, source)| {
        let frame = ends.partition_point(|&end| end <= at).min(frames.len() - 1);
        ReplayError::Apply { offset: frames[frame].offset, source }
    })?;
    Ok(effects.len() as u64)
}

/// What lies behind the last intact frame.
struct Tail {
    /// Highest position of a mark, 0 without one.
    marked: u64,
    /// After the last byte that is not zero.
    end: u64,
    /// Of all bytes up to the end of the file.
    crc: u32,
}

/// A part of the file that moves forward over it, with what follows on its way.
struct Window<'a, F> {
    file: &'a F,
    file_len: u64,
    read_len: usize,
    start: u64,
    bytes: Vec<u8>,
    /// In the order of their offsets, without gaps.
    ahead: VecDeque<Ahead<'a>>,
    spare: Vec<AlignedBuf>,
}

/// A read that was begun.
struct Ahead<'a> {
    offset: u64,
    read: MaybeDone<Pin<Box<dyn Future<Output = Done> + 'a>>>,
}

/// Reads under way at a time: the disk works while what came before is applied.
const READS_AHEAD: usize = 4;

impl<'a, F: File> Window<'a, F> {
    async fn open<E>(file: &'a F, read_len: usize) -> Result<Self, ReplayError<E>> {
        let file_len = file.len().await.map_err(|source| ReplayError::Read { offset: 0, source })?;
        Ok(Self { file, file_len, read_len, start: 0, bytes: Vec::new(), ahead: VecDeque::new(), spare: Vec::new() })
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Whether [`Window::get`] would move nothing.
    fn holds(&self, offset: u64, len: u64) -> bool {
        offset >= self.start && offset.checked_add(len).is_some_and(|end| end <= self.end())
    }

    /// What it holds.
    fn held(&self, offset: u64, len: u64) -> &[u8] {
        debug_assert!(self.holds(offset, len), "it has moved on");
        &self.bytes[(offset - self.start) as usize..][..len as usize]
    }

    /// `len` bytes at `offset`; None where the file is shorter.
    async fn get<E>(&mut self, offset: u64, len: u64) -> Result<Option<&[u8]>, ReplayError<E>> {
        if offset.checked_add(len).is_none_or(|end| end > self.file_len) {
            return Ok(None);
        }
        if offset < self.start || offset > self.end() {
            self.start = offset;
            self.bytes.clear();
        }
        while self.end() < offset + len {
            self.bytes.drain(..(offset - self.start) as usize);
            self.start = offset;
            self.read_on().await?;
        }
        Ok(Some(self.held(offset, len)))
    }

    /// What is asked for from now on is read anew.
    fn forget(&mut self) {
        self.bytes.clear();
        self.ahead.clear();
    }

    async fn read_on<E>(&mut self) -> Result<(), ReplayError<E>> {
        let offset = self.end();
        if self.ahead.front().is_none_or(|ahead| ahead.offset != offset) {
            // The window has jumped, or a read was short.
            self.ahead.clear();
            self.begin_read(offset).await;
        }
        let mut next = self.ahead.pop_front().expect("one was begun");
        while self.ahead.len() < READS_AHEAD {
            let after = self.ahead.back().unwrap_or(&next).offset + self.read_len as u64;
            if after >= self.file_len {
                break;
            }
            self.begin_read(after).await;
        }
        (&mut next.read).await;
        let done = Pin::new(&mut next.read).take_output().expect("it has ended");
        let read = done.result.and_then(|read| match read {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        });
        self.bytes.extend_from_slice(&done.buf[..read.map_err(|source| ReplayError::Read { offset, source })?]);
        self.spare.push(done.buf);
        Ok(())
    }

    /// Has the disk begin.
    async fn begin_read(&mut self, offset: u64) {
        let buf = self.spare.pop().unwrap_or_else(|| AlignedBuf::zeroed(self.read_len));
        let file = self.file;
        let read: Pin<Box<dyn Future<Output = Done> + 'a>> = Box::pin(file.read_at(buf, offset));
        let mut read = maybe_done(read);
        poll_fn(|context| Poll::Ready(Pin::new(&mut read).poll(context).is_ready())).await;
        self.ahead.push_back(Ahead { offset, read });
    }

    async fn header<E>(&mut self, offset: u64, salt: u64) -> Result<Option<Header>, ReplayError<E>> {
        let bytes = self.get(offset, HEADER as u64).await?;
        Ok(bytes.and_then(|bytes| Header::decode(bytes.as_array()?, salt)))
    }

    /// Looks through everything from `from` on. A mark always begins a sector.
    async fn tail<E>(&mut self, from: u64, salt: u64) -> Result<Tail, ReplayError<E>> {
        let mut tail = Tail { marked: 0, end: from, crc: 0 };
        let mut at = from;
        while at < self.file_len {
            let len = (next_sector(at + 1) - at).min(self.file_len - at);
            let bytes = self.get(at, len).await?.expect("within the file");
            tail.crc = crc32c::crc32c_append(tail.crc, bytes);
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
