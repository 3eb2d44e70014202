//! The manifest: a few lines of text, so that a user can read it, with a checksum, so that nobody edits it by mistake.
//!
//! ```text
//! ferrite-manifest 3
//! base appendonly-4.base.aof 5f1d6a0c91e3b244 covers 1234 holds 5678
//! aof appendonly-3.aof 03c2b81f77aa0d19 from 1100
//! aof appendonly-5.aof 9c0e52d1f4b86a37 from 9000
//! checkpoint checkpoint-6.ckpt 71d05b6e2a9cf038 at 9100 log 4194304 holds 81920
//! durable 9500
//! crc32c 0a1b2c3d
//! ```
//! `base` is absent until the first rewrite. It stands for everything below the position that it `covers`, and `holds` so
//! many bytes of frames. Each `aof` line is a segment with its salt and the position of its first frame; together they
//! hold every frame from the first one's position on, in order. A `checkpoint` shows the state `at` a position, with everything
//! in the `log` file below an address, and `holds` so many bytes; the younger of two comes last. `durable` is a position up to which the segments were
//! durable when this was written.

use std::fmt::Write as _;

use thiserror::Error;

use crate::aof::Extent;
use crate::aof::segment::SegmentHeader;

const MAGIC: &str = "ferrite-manifest";
pub(crate) const VERSION: u32 = 3;
/// The oldest version that is read: it has no checkpoints.
const VERSION_MIN: u32 = 2;
/// Checkpoints that are kept: the last, and one to fall back to.
const CHECKPOINTS_MAX: usize = 2;

/// What the data directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub base: Option<BaseEntry>,
    /// In the order of their positions. Empty if the server ran without an append-only file.
    pub segments: Vec<SegmentEntry>,
    /// In the order in which they were made; their positions do not fall. Nothing that the base covers.
    pub checkpoints: Vec<CheckpointEntry>,
    pub durable: u64,
}

/// A segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub number: u64,
    pub salt: u64,
    /// Of the first frame.
    pub position: u64,
}

/// What a rewrite left of the log's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BaseEntry {
    pub number: u64,
    pub salt: u64,
    /// Position in the log below which the base stands for every frame.
    pub covers: u64,
    /// Bytes of its own frames.
    pub len: u64,
}

/// A checkpoint: see [`crate::checkpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointEntry {
    pub number: u64,
    pub salt: u64,
    /// Position in the AOF from which on it is replayed over the checkpoint.
    pub position: u64,
    /// Address below which the log file belongs to it.
    pub tail: u64,
    /// Bytes of its file.
    pub len: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ManifestError {
    #[error("it does not begin with `{MAGIC}`")]
    Foreign,
    #[error("it has format version {0} and this server reads version {VERSION}")]
    Version(u32),
    #[error("its checksum does not match its content")]
    Checksum,
    #[error("line {0} is not understood")]
    Line(usize),
}

/// What a file is called that a manifest may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogName {
    Segment(u64),
    Base(u64),
    Checkpoint(u64),
}

impl LogName {
    /// None if there are no files of that name.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(digits) = name.strip_prefix("checkpoint-").and_then(|rest| rest.strip_suffix(".ckpt")) {
            let parsed = Self::Checkpoint(digits.parse().ok()?);
            return (parsed.to_string() == name).then_some(parsed);
        }
        let rest = name.strip_prefix("appendonly-")?.strip_suffix(".aof")?;
        let (digits, made): (&str, fn(u64) -> Self) = match rest.strip_suffix(".base") {
            Some(digits) => (digits, Self::Base),
            None => (rest, Self::Segment),
        };
        let parsed = made(digits.parse().ok()?);
        (parsed.to_string() == name).then_some(parsed)
    }

    pub fn number(self) -> u64 {
        match self {
            Self::Segment(number) | Self::Base(number) | Self::Checkpoint(number) => number,
        }
    }
}

impl std::fmt::Display for LogName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Segment(number) => write!(f, "appendonly-{number}.aof"),
            Self::Base(number) => write!(f, "appendonly-{number}.base.aof"),
            Self::Checkpoint(number) => write!(f, "checkpoint-{number}.ckpt"),
        }
    }
}

impl SegmentEntry {
    pub fn name(&self) -> LogName {
        LogName::Segment(self.number)
    }
}

impl BaseEntry {
    pub fn name(&self) -> LogName {
        LogName::Base(self.number)
    }

    /// What its file begins with, and what of it is wanted.
    pub fn extent(&self) -> (SegmentHeader, Extent) {
        (SegmentHeader { base: 0, salt: self.salt }, Extent { apply_from: 0, durable: self.len, sealed: true })
    }
}

impl CheckpointEntry {
    pub fn name(&self) -> LogName {
        LogName::Checkpoint(self.number)
    }
}

impl Manifest {
    /// Every file that it names, the base first.
    pub fn names(&self) -> impl Iterator<Item = LogName> + '_ {
        let log = self.base.iter().map(BaseEntry::name).chain(self.segments.iter().map(SegmentEntry::name));
        log.chain(self.checkpoints.iter().map(CheckpointEntry::name))
    }

    /// Whether the append-only log is all that a start needs.
    pub fn log_is_whole(&self) -> bool {
        self.segments.first().is_some_and(|first| self.base.is_some() || first.position == 0)
    }

    /// Whether the append-only log, if there is one, goes on from a checkpoint.
    pub fn log_reaches(&self, checkpoint: &CheckpointEntry) -> bool {
        self.segments.first().is_none_or(|first| first.position <= checkpoint.position)
    }

    /// Takes in a checkpoint: from now on nothing is needed that neither it nor the one before it needs.
    pub fn add_checkpoint(&mut self, entry: CheckpointEntry) {
        self.checkpoints.push(entry);
        // The first has nothing before it but the whole log.
        if let Some(too_many) = self.checkpoints.len().checked_sub(CHECKPOINTS_MAX) {
            self.checkpoints.drain(..too_many);
            let first = self.checkpoints[0].position;
            self.base = None;
            self.forget_segments_below(first);
        }
    }

    /// Takes in a base: from now on it is where a start begins.
    pub fn set_base(&mut self, base: BaseEntry) {
        self.checkpoints.retain(|checkpoint| checkpoint.position >= base.covers);
        self.forget_segments_below(base.covers);
        self.base = Some(base);
    }

    /// A segment is needed if one after it does not begin at or below `position`.
    fn forget_segments_below(&mut self, position: u64) {
        let first = self.segments.iter().rposition(|segment| segment.position <= position).unwrap_or(0);
        self.segments.drain(..first);
    }

    /// The highest number in use; 0 if none is.
    pub fn last_number(&self) -> u64 {
        self.names().map(LogName::number).max().unwrap_or(0)
    }

    /// Position below which nothing of the segments is applied: the base stands for it.
    pub fn covered(&self) -> u64 {
        self.base.map_or(0, |base| base.covers)
    }

    /// What the file of the segment at `index` begins with, and what of it is wanted by a replay from position `from` on. All
    /// but the last are sealed.
    pub fn extent_of(&self, index: usize, from: u64) -> (SegmentHeader, Extent) {
        let (segment, next) = (&self.segments[index], self.segments.get(index + 1));
        let durable = next.map_or(self.durable, |next| next.position);
        let extent = Extent { apply_from: from, durable, sealed: next.is_some() };
        (SegmentHeader { base: segment.position, salt: segment.salt }, extent)
    }

    pub fn encode(&self) -> String {
        let mut text = format!("{MAGIC} {VERSION}\n");
        if let Some(base) = &self.base {
            let (name, BaseEntry { salt, covers, len, .. }) = (base.name(), base);
            let _ = writeln!(text, "base {name} {salt:016x} covers {covers} holds {len}");
        }
        for segment in &self.segments {
            let _ = writeln!(text, "aof {} {:016x} from {}", segment.name(), segment.salt, segment.position);
        }
        for checkpoint in &self.checkpoints {
            let (name, CheckpointEntry { salt, position, tail, len, .. }) = (checkpoint.name(), checkpoint);
            let _ = writeln!(text, "checkpoint {name} {salt:016x} at {position} log {tail} holds {len}");
        }
        let _ = writeln!(text, "durable {}", self.durable);
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc32c {crc:08x}");
        text
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let rest = bytes.strip_prefix(MAGIC.as_bytes()).ok_or(ManifestError::Foreign)?;
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::Checksum)?;
        let (body, crc) = text
            .strip_suffix('\n')
            .and_then(|text| text.rsplit_once("\ncrc32c "))
            .map_or((text, None), |(body, crc)| (&text[..=body.len()], u32::from_str_radix(crc, 16).ok()));
        let version = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let version = std::str::from_utf8(version).ok().and_then(|text| text.trim().parse().ok());
        if crc != Some(crc32c::crc32c(body.as_bytes())) {
            // A newer format may end otherwise: say so rather than that it is damaged.
            return Err(match version {
                Some(version) if version > VERSION => ManifestError::Version(version),
                _ => ManifestError::Checksum,
            });
        }
        match version {
            Some(VERSION_MIN..=VERSION) => {}
            other => return Err(other.map_or(ManifestError::Line(1), ManifestError::Version)),
        }
        let mut manifest = Self::default();
        for (index, line) in body.lines().enumerate().skip(1) {
            manifest.line(line).ok_or(ManifestError::Line(index + 1))?;
        }
        Ok(manifest)
    }

    /// Takes one line in; `None` if it is not understood, or contradicts those before.
    fn line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["base", name, salt, "covers", covers, "holds", len] if self.base.is_none() => {
                let LogName::Base(number) = LogName::parse(name)? else { return None };
                let (covers, len) = (covers.parse().ok()?, len.parse().ok()?);
                self.base = Some(BaseEntry { number, salt: hexadecimal(salt)?, covers, len });
            }
            ["aof", name, salt, "from", position] => {
                let LogName::Segment(number) = LogName::parse(name)? else { return None };
                let next = SegmentEntry { number, salt: hexadecimal(salt)?, position: position.parse().ok()? };
                match self.segments.last() {
                    None => (self.base.is_none() || next.position <= self.covered()).then_some(())?,
                    Some(last) => (last.number < number && last.position <= next.position).then_some(())?,
                }
                self.segments.push(next);
            }
            ["checkpoint", name, salt, "at", position, "log", tail, "holds", len] => {
                let LogName::Checkpoint(number) = LogName::parse(name)? else { return None };
                let (position, tail, len) = (position.parse().ok()?, tail.parse().ok()?, len.parse().ok()?);
                let next = CheckpointEntry { number, salt: hexadecimal(salt)?, position, tail, len };
                (position >= self.covered()).then_some(())?;
                if let Some(last) = self.checkpoints.last() {
                    (last.number < number && last.position <= position && last.tail <= tail).then_some(())?;
                }
                self.checkpoints.push(next);
            }
            ["durable", position] => self.durable = position.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_crc(body: &str) -> Vec<u8> {
        format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).into_bytes()
    }

    fn whole() -> Manifest {
        Manifest {
            base: Some(BaseEntry { number: 4, salt: 0x0a, covers: 120, len: 88 }),
            segments: vec![
                SegmentEntry { number: 3, salt: u64::MAX, position: 100 },
                SegmentEntry { number: 5, salt: 7, position: u64::MAX },
            ],
            checkpoints: vec![
                CheckpointEntry { number: 6, salt: 1, position: 120, tail: 4096, len: 600 },
                CheckpointEntry { number: 7, salt: 2, position: 120, tail: 8192, len: 512 },
            ],
            durable: u64::MAX,
        }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        for manifest in [Manifest::default(), Manifest { base: None, ..whole() }, whole()] {
            assert_eq!(manifest.last_number(), if manifest.segments.is_empty() { 0 } else { 7 });
            assert_eq!(Manifest::decode(manifest.encode().as_bytes()), Ok(manifest));
        }
        assert!(
            whole().encode().contains("\naof appendonly-3.aof ffffffffffffffff from 100\n"),
            "{}",
            whole().encode()
        );
    }

    #[test]
    fn any_damage_is_noticed() {
        let bytes = whole().encode().into_bytes();
        for cut in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // Upper and lower case of a checksum's digit are the same digit.
            if damaged.to_ascii_lowercase() != bytes {
                assert!(Manifest::decode(&damaged).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(Manifest::decode(b""), Err(ManifestError::Foreign));
        assert_eq!(Manifest::decode(b"file appendonly.aof.1 seq 1"), Err(ManifestError::Foreign));
        assert_eq!(Manifest::decode(&with_crc("ferrite-manifest 4\n")), Err(ManifestError::Version(4)));
        assert_eq!(Manifest::decode(b"ferrite-manifest 4\nsealed"), Err(ManifestError::Version(4)));
        assert_eq!(Manifest::decode(&with_crc("ferrite-manifest 1\naof a\n")), Err(ManifestError::Version(1)));
        assert_eq!(Manifest::decode(b"ferrite-manifest 3\n"), Err(ManifestError::Checksum));
        assert_eq!(Manifest::decode(&with_crc("ferrite-manifest 2\ndurable 0\n")), Ok(Manifest::default()));
        let line = |body: &str| Manifest::decode(&with_crc(&format!("ferrite-manifest 3\n{body}")));
        const SALT: &str = "0000000000000001";
        for (body, at) in [
            (format!("aof ../x {SALT} from 1\n"), 2),
            (format!("aof appendonly-01.aof {SALT} from 1\n"), 2),
            (format!("aof appendonly-1.base.aof {SALT} from 1\n"), 2),
            (format!("base appendonly-1.aof {SALT} covers 1 holds 1\n"), 2),
            ("aof appendonly-1.aof 1 from 1\n".to_owned(), 2),
            ("durable x\n".to_owned(), 2),
            ("what else\n".to_owned(), 2),
            (format!("checkpoint appendonly-1.aof {SALT} at 1 log 1 holds 1\n"), 2),
            (format!("checkpoint checkpoint-1.ckpt {SALT} at 1 log 1\n"), 2),
            // Older than the one before, and one that the base covers.
            (
                format!(
                    "checkpoint checkpoint-1.ckpt {SALT} at 2 log 1 holds 1\ncheckpoint checkpoint-2.ckpt {SALT} at 1 log 1 holds 1\n"
                ),
                3,
            ),
            (
                format!(
                    "base appendonly-9.base.aof {SALT} covers 2 holds 1\ncheckpoint checkpoint-2.ckpt {SALT} at 1 log 1 holds 1\n"
                ),
                3,
            ),
            // Out of order, and a gap between what the base covers and the first segment.
            (format!("aof appendonly-2.aof {SALT} from 1\naof appendonly-1.aof {SALT} from 2\n"), 3),
            (format!("aof appendonly-1.aof {SALT} from 2\naof appendonly-2.aof {SALT} from 1\n"), 3),
            (format!("base appendonly-9.base.aof {SALT} covers 1 holds 1\naof appendonly-2.aof {SALT} from 2\n"), 3),
        ] {
            assert_eq!(line(&body), Err(ManifestError::Line(at)), "{body}");
        }
    }

    fn checkpoint(number: u64, position: u64) -> CheckpointEntry {
        CheckpointEntry { number, salt: 0, position, tail: 4096 * number, len: 0 }
    }

    fn segments(positions: &[u64]) -> Vec<SegmentEntry> {
        (1..).zip(positions).map(|(number, &position)| SegmentEntry { number, salt: 0, position }).collect()
    }

    #[test]
    fn the_log_goes_only_when_two_checkpoints_do_without_it() {
        let base = Some(BaseEntry { number: 9, salt: 0, covers: 5, len: 0 });
        let mut manifest = Manifest { base, segments: segments(&[0, 10, 20, 30]), ..Manifest::default() };
        manifest.add_checkpoint(checkpoint(10, 12));
        assert!(manifest.log_is_whole() && manifest.base.is_some() && manifest.segments.len() == 4);
        manifest.add_checkpoint(checkpoint(11, 31));
        assert!(manifest.base.is_none() && !manifest.log_is_whole());
        assert_eq!(manifest.segments[0].position, 10, "the older one goes on from 12");
        manifest.add_checkpoint(checkpoint(12, 32));
        let kept: Vec<u64> = manifest.checkpoints.iter().map(|checkpoint| checkpoint.number).collect();
        assert_eq!((kept, manifest.segments[0].position), (vec![11, 12], 30));
        assert!(manifest.checkpoints.iter().all(|checkpoint| manifest.log_reaches(checkpoint)));
    }

    #[test]
    fn a_base_stands_for_the_checkpoints_before_it() {
        let mut manifest = Manifest { segments: segments(&[0, 10, 20]), ..Manifest::default() };
        manifest.add_checkpoint(checkpoint(10, 12));
        manifest.set_base(BaseEntry { number: 11, salt: 0, covers: 21, len: 0 });
        assert!(manifest.checkpoints.is_empty() && manifest.log_is_whole());
        assert_eq!(manifest.segments[0].position, 20);
    }

    #[test]
    fn a_log_that_began_after_a_checkpoint_is_not_whole() {
        let manifest = Manifest {
            segments: segments(&[7]),
            checkpoints: vec![checkpoint(1, 6), checkpoint(2, 7)],
            ..Manifest::default()
        };
        assert!(!manifest.log_is_whole());
        assert!(!manifest.log_reaches(&manifest.checkpoints[0]) && manifest.log_reaches(&manifest.checkpoints[1]));
    }
}
