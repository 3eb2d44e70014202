//! The manifest: a few lines of text, so that a user can read it, with a checksum, so that nobody edits it by mistake.

use std::fmt::Write as _;

use thiserror::Error;

const MAGIC: &str = "ferrite-manifest";
const VERSION: u32 = 1;

/// What the data directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// File name of the append-only file's segment. None if the server ran without.
    pub segment: Option<String>,
    /// Position up to which the append-only file was durable when this was written.
    pub durable: u64,
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

impl Manifest {
    pub fn encode(&self) -> String {
        let mut text = format!("{MAGIC} {VERSION}\n");
        if let Some(name) = &self.segment {
            let _ = writeln!(text, "aof {name}");
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
            match line.split_once(' ') {
                Some(("aof", name)) if manifest.segment.is_none() && is_plain_name(name) => {
                    manifest.segment = Some(name.to_owned());
                }
                Some(("durable", number)) => {
                    manifest.durable = number.parse().map_err(|_| ManifestError::Line(index + 1))?;
                }
                _ => return Err(ManifestError::Line(index + 1)),
            }
        }
        Ok(manifest)
    }
}

/// A file of this directory and no other.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_crc(body: &str) -> Vec<u8> {
        format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).into_bytes()
    }

    #[test]
    fn reads_back_what_it_wrote() {
        for manifest in
            [Manifest::default(), Manifest { segment: Some("appendonly-1.aof".to_owned()), durable: u64::MAX }]
        {
            assert_eq!(Manifest::decode(manifest.encode().as_bytes()), Ok(manifest));
        }
    }

    #[test]
    fn any_damage_is_noticed() {
        let manifest = Manifest { segment: Some("appendonly-1.aof".to_owned()), durable: 7 };
        let bytes = manifest.encode().into_bytes();
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
        assert_eq!(Manifest::decode(&with_crc("ferrite-manifest 2\n")), Err(ManifestError::Version(2)));
        assert_eq!(Manifest::decode(b"ferrite-manifest 2\nsealed"), Err(ManifestError::Version(2)));
        assert_eq!(Manifest::decode(b"ferrite-manifest 1\n"), Err(ManifestError::Checksum));
        let line = |body| Manifest::decode(&with_crc(body));
        assert_eq!(line("ferrite-manifest 1\naof ../x\n"), Err(ManifestError::Line(2)));
        assert_eq!(line("ferrite-manifest 1\ndurable x\n"), Err(ManifestError::Line(2)));
        assert_eq!(line("ferrite-manifest 1\naof a\naof b\n"), Err(ManifestError::Line(3)));
        assert_eq!(line("ferrite-manifest 1\nwhat else\n"), Err(ManifestError::Line(2)));
    }
}
