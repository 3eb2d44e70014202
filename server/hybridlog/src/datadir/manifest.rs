//! The manifest: a few lines of text, so that a user can read it, with a checksum, so that nobody edits it by mistake.
//!
//! ```text
//! ferrite-manifest 2
//! base appendonly-4.base.aof 5f1d6a0c91e3b244 covers 1234 holds 5678
//! aof appendonly-3.aof 03c2b81f77aa0d19 from 1100
//! aof appendonly-5.aof 9c0e52d1f4b86a37 from 9000
//! durable 9500
//! crc32c 0a1b2c3d
//! ```
//! `base` is absent until the first rewrite. It stands for everything below the position that it `covers`, and `holds` so
//! many bytes of frames. Each `aof` line is a segment with its salt and the position of its first frame; together they
//! hold every frame from the first one's position on, in order. `durable` is a position up to which the segments were
//! durable when this was written.

use std::fmt::Write as _;

use thiserror::Error;

use crate::aof::Extent;
use crate::aof::segment::SegmentHeader;

const MAGIC: &str = "ferrite-manifest";
pub(crate) const VERSION: u32 = 2;

/// What the data directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub base: Option<BaseEntry>,
    /// In the order of their positions. Empty if the server ran without an append-only file.
    pub segments: Vec<SegmentEntry>,
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

/// What a file of the append-only log is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogName {
    Segment(u64),
    Base(u64),
}

impl LogName {
    /// None if the append-only log has no files of that name.
    pub fn parse(name: &str) -> Option<Self> {
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
            Self::Segment(number) | Self::Base(number) => number,
        }
    }
}

impl std::fmt::Display for LogName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Segment(number) => write!(f, "appendonly-{number}.aof"),
            Self::Base(number) => write!(f, "appendonly-{number}.base.aof"),
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

impl Manifest {
    /// Every file that it names, the base first.
    pub fn names(&self) -> impl Iterator<Item = LogName> + '_ {
        self.base.iter().map(BaseEntry::name).chain(self.segments.iter().map(SegmentEntry::name))
    }

    /// The highest number in use; 0 if none is.
    pub fn last_number(&self) -> u64 {
        self.names().map(LogName::number).max().unwrap_or(0)
    }

    /// Position below which nothing of the segments is applied: the base stands for it.
    pub fn covered(&self) -> u64 {
        self.base.map_or(0, |base| base.covers)
    }

    /// What the file of the segment at `index` begins with, and what of it is wanted. All but the last are sealed.
    pub fn extent_of(&self, index: usize) -> (SegmentHeader, Extent) {
        let (segment, next) = (&self.segments[index], self.segments.get(index + 1));
        let durable = next.map_or(self.durable, |next| next.position);
        let extent = Extent { apply_from: self.covered(), durable, sealed: next.is_some() };
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
        if version != Some(VERSION) {
            return Err(version.map_or(ManifestError::Line(1), ManifestError::Version));
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
            durable: u64::MAX,
        }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        for manifest in [Manifest::default(), Manifest { base: None, ..whole() }, whole()] {
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
        assert_eq!(Manifest::decode(&with_crc("ferrite-manifest 3\n")), Err(ManifestError::Version(3)));
        assert_eq!(Manifest::decode(b"ferrite-manifest 3\nsealed"), Err(ManifestError::Version(3)));
        assert_eq!(Manifest::decode(&with_crc("ferrite-manifest 1\naof a\n")), Err(ManifestError::Version(1)));
        assert_eq!(Manifest::decode(b"ferrite-manifest 2\n"), Err(ManifestError::Checksum));
        let line = |body: &str| Manifest::decode(&with_crc(&format!("ferrite-manifest 2\n{body}")));
        const SALT: &str = "0000000000000001";
        for (body, at) in [
            (format!("aof ../x {SALT} from 1\n"), 2),
            (format!("aof appendonly-01.aof {SALT} from 1\n"), 2),
            (format!("aof appendonly-1.base.aof {SALT} from 1\n"), 2),
            (format!("base appendonly-1.aof {SALT} covers 1 holds 1\n"), 2),
            ("aof appendonly-1.aof 1 from 1\n".to_owned(), 2),
            ("durable x\n".to_owned(), 2),
            ("what else\n".to_owned(), 2),
            // Out of order, and a gap between what the base covers and the first segment.
            (format!("aof appendonly-2.aof {SALT} from 1\naof appendonly-1.aof {SALT} from 2\n"), 3),
            (format!("aof appendonly-1.aof {SALT} from 2\naof appendonly-2.aof {SALT} from 1\n"), 3),
            (format!("base appendonly-9.base.aof {SALT} covers 1 holds 1\naof appendonly-2.aof {SALT} from 2\n"), 3),
        ] {
            assert_eq!(line(&body), Err(ManifestError::Line(at)), "{body}");
        }
    }
}
