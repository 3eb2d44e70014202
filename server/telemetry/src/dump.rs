//! Flight recorders in a file: what a crash or SIGQUIT leaves behind, byte for byte as it lay in memory.
//!
//! ```text
//! magic      8 bytes
//! version    8 bytes: of this layout and of the records in the rings
//! rings      8 bytes: how many
//! slots      8 bytes for each: its slots of 32 bytes
//! notes      8 bytes of length, then a text, filled up with zeroes to whole words
//! then for each ring:
//!   newest   8 bytes
//!   slots    32 bytes each
//!   reserved 8 bytes, read after the slots: what was overwritten meanwhile is told by it
//! ```
//!
//! Numbers are in the order of the machine that wrote it.

use std::sync::atomic::AtomicU64;

use crate::batch::SLOT_WORDS;
use crate::ring::Ring;

const MAGIC: &[u8; 8] = b"FERRRING";
/// To be raised whenever a record changes.
const VERSION: u64 = 3;
/// More than a node has workers.
const RINGS_MAX: u64 = 4096;
/// More than any configuration asks for.
const SLOTS_MAX: u64 = 1 << 28;

/// Why a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpError {
    /// It is something else.
    NoDump,
    /// It is of another version of the server.
    Version(u64),
    /// It ends too early, or its parts do not fit together.
    Damaged,
}

impl std::fmt::Display for DumpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoDump => write!(f, "not a flight recorder's file"),
            Self::Version(version) => {
                write!(f, "written by another version of ferrite (layout {version}, this one reads {VERSION})")
            }
            Self::Damaged => write!(f, "the file is damaged"),
        }
    }
}

impl std::error::Error for DumpError {}

/// What comes before the rings' memory.
pub fn dump_header(rings: &[&Ring], notes: &str) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    let mut word = |word: u64| header.extend_from_slice(&word.to_ne_bytes());
    word(VERSION);
    word(rings.len() as u64);
    rings.iter().for_each(|ring| word((ring.bytes() / (SLOT_WORDS * size_of::<u64>())) as u64));
    word(notes.len() as u64);
    header.extend_from_slice(notes.as_bytes());
    header.resize(header.len().next_multiple_of(size_of::<u64>()), 0);
    header
}

/// A ring's memory, in the order in which it is to be read and written.
pub fn dump_memory(ring: &Ring) -> [&[AtomicU64]; 3] {
    ring.memory()
}

/// The notes and the rings of a file.
///
/// # Errors
/// If it is not one, or not of this version, or not whole.
pub fn read_dump(file: &[u8]) -> Result<(String, Vec<Ring>), DumpError> {
    let mut rest = file.strip_prefix(MAGIC).ok_or(DumpError::NoDump)?;
    fn take<'f>(rest: &mut &'f [u8], len: usize) -> Result<&'f [u8], DumpError> {
        let (taken, behind) = rest.split_at_checked(len).ok_or(DumpError::Damaged)?;
        *rest = behind;
        Ok(taken)
    }
    fn word(rest: &mut &[u8]) -> Result<u64, DumpError> {
        let bytes = take(rest, size_of::<u64>())?;
        Ok(u64::from_ne_bytes(bytes.try_into().expect("as many were taken")))
    }
    fn bounded(value: u64, max: u64) -> Result<usize, DumpError> {
        if value <= max { Ok(value as usize) } else { Err(DumpError::Damaged) }
    }
    match word(&mut rest)? {
        VERSION => {}
        version => return Err(DumpError::Version(version)),
    }
    let count = bounded(word(&mut rest)?, RINGS_MAX)?;
    let mut slots = Vec::new();
    for _ in 0..count {
        slots.push(bounded(word(&mut rest)?, SLOTS_MAX)?);
    }
    let len = bounded(word(&mut rest)?, SLOTS_MAX)?;
    let notes = take(&mut rest, len.next_multiple_of(size_of::<u64>()))?;
    let notes = String::from_utf8(notes[..len].to_vec()).map_err(|_| DumpError::Damaged)?;
    let mut rings = Vec::new();
    for slots in slots {
        let newest = word(&mut rest)?;
        let words = take(&mut rest, slots * SLOT_WORDS * size_of::<u64>())?;
        let words: Vec<u64> = words.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        let reserved = word(&mut rest)?;
        rings.push(Ring::from_words(newest, &words, reserved).ok_or(DumpError::Damaged)?);
    }
    if rest.is_empty() { Ok((notes, rings)) } else { Err(DumpError::Damaged) }
}
