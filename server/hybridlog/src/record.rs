//! The record's layout, in memory and on disk alike.
//!
//! ```text
//!  0  u64  previous address (48) | format version (4) | kind (4) | encoding (4) | flags (4)
//!  8  u32  crc32c, filled in when the page is sealed
//! 12  u32  access clock: see `access.rs`
//! 16  u64  expiry, milliseconds since the Unix epoch; 0: none
//! 24  u32  space: the database generation the key belongs to
//! 28  u32  key length; the top bit: the key is too long for the record, and these bytes are its digest
//! 32  u32  value length
//! 36  u32  value capacity: value length and room to grow
//! 40       key, value, slack
//! ```
//! The value of an *object* is a descriptor of what lies elsewhere ([`crate::objects`]). The digest of a long key is 24 bytes:
//! its length, its hash, and a hash with another secret.
//!
//! Records begin at multiples of 8 and do not cross pages. The rest of a page is covered by a filler, of
//! which only the first word exists. All numbers are little-endian on disk; so are the machines it runs on.

use crate::address::{ADDRESS_BITS, ADDRESS_MASK, Address};
use crate::objects::{DESCRIPTOR, Descriptor, Object};
use crate::sync::{AtomicU32, Ordering};
use ferrite_telemetry::Tier;

/// Bytes before the key.
pub(crate) const HEADER: usize = 40;
/// Records start at multiples of this.
pub(crate) const ALIGN: usize = 8;
/// The format this code writes.
pub(crate) const VERSION: u64 = 1;

const VERSION_SHIFT: u32 = ADDRESS_BITS;
const KIND_SHIFT: u32 = VERSION_SHIFT + 4;
const ENCODING_SHIFT: u32 = KIND_SHIFT + 4;
const FLAGS_SHIFT: u32 = ENCODING_SHIFT + 4;

/// The key is deleted.
pub(crate) const TOMBSTONE: u64 = 1 << FLAGS_SHIFT;
/// Nothing until the end of the page.
pub(crate) const FILLER: u64 = 1 << (FLAGS_SHIFT + 1);
/// The value lies outside of the record, which has a descriptor of it.
pub(crate) const OBJECT: u64 = 1 << (FLAGS_SHIFT + 2);

/// In the word of the key's length: the record has the digest of a longer key.
pub(crate) const LONG_KEY: u32 = 1 << 31;
/// Bytes of a digest.
pub(crate) const DIGEST: usize = 24;

const _: () = assert!(cfg!(target_endian = "little"), "the record layout is little-endian");

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    String = 0,
    List = 1,
    Set = 2,
    ZSet = 3,
    Hash = 4,
    Stream = 5,
}

impl Kind {
    fn from_bits(bits: u64) -> Option<Self> {
        Self::of((bits & 0xf) as u8)
    }

    /// The type with this number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::String,
            1 => Self::List,
            2 => Self::Set,
            3 => Self::ZSet,
            4 => Self::Hash,
            5 => Self::Stream,
            _ => return None,
        })
    }
}

/// A record as a reader sees it. Its slices point into the log: they are good until the guard they came
/// from goes, and only while no write touches the same key.
#[derive(Clone, Copy)]
pub struct RecordView<'s> {
    pub space: u32,
    pub key: &'s [u8],
    pub value: &'s [u8],
    pub kind: Kind,
    /// Milliseconds since the Unix epoch; 0: never.
    pub expire_at_ms: u64,
    pub tier: Tier,
    pub address: Address,
    /// The access clock's bits: see [`crate::idle_seconds`] and [`crate::frequency`].
    pub access: u32,
    /// Bytes the record takes in the log, and those of the object that it owns, as it is written.
    pub size: usize,
    /// The value, if it is an object. `value` has its bytes if they are what lies in memory, and is empty otherwise.
    pub object: Option<&'s dyn Object>,
}

impl std::fmt::Debug for RecordView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { space, key, kind, expire_at_ms, tier, address, .. } = self;
        write!(f, "{kind:?} {space}/{key:?} at {address:#x} ({tier:?}), expires at {expire_at_ms}, ")?;
        write!(f, "{} bytes", self.value_len())
    }
}

impl RecordView<'_> {
    /// Bytes of the value as they are written: in the record, or those of the object.
    pub fn value_len(&self) -> usize {
        self.object.map_or(self.value.len(), |object| object.written_len())
    }

    /// Bytes of the record in the log and of what it owns in memory.
    pub fn memory(&self) -> usize {
        self.object.map_or(self.size, |object| self.size - object.written_len() + object.memory())
    }
}

/// What goes into a new record.
pub(crate) struct NewRecord<'a> {
    pub previous: Address,
    pub space: u32,
    pub key: &'a [u8],
    /// `key` is the digest of a longer one.
    pub long_key: bool,
    pub kind: Kind,
    pub object: bool,
    pub tombstone: bool,
    pub expire_at_ms: u64,
    pub access: u32,
    pub value: &'a [&'a [u8]],
    pub value_len: usize,
    pub size: usize,
}

/// Bytes a record takes.
#[inline]
pub(crate) fn record_size(key_len: usize, capacity: usize) -> usize {
    (HEADER + key_len + capacity).next_multiple_of(ALIGN)
}

/// A pointer to a record in a page. Whoever makes one vouches for what the methods need: the page stays,
/// and the latch of the record's bucket (or the exclusive mode) is held as each method says.
#[derive(Clone, Copy)]
pub(crate) struct Raw(*mut u8);

impl Raw {
    /// # Safety
    /// `at` is 8-aligned and begins a record (or a filler) that stays readable for as long as this is used.
    #[inline]
    pub(crate) unsafe fn new(at: *mut u8) -> Self {
        debug_assert_eq!(at as usize % ALIGN, 0);
        Self(at)
    }

    #[inline]
    fn u64(self, at: usize) -> u64 {
        // SAFETY: the header is readable and `at` a multiple of 8 inside it (contract of `new`).
        unsafe { self.0.add(at).cast::<u64>().read() }
    }

    #[inline]
    fn u32(self, at: usize) -> u32 {
        // SAFETY: as in `u64`, with 4.
        unsafe { self.0.add(at).cast::<u32>().read() }
    }

    #[inline]
    pub(crate) fn word(self) -> u64 {
        self.u64(0)
    }

    #[inline]
    pub(crate) fn previous(self) -> Address {
        self.word() & ADDRESS_MASK
    }

    #[inline]
    pub(crate) fn is_tombstone(self) -> bool {
        self.word() & TOMBSTONE != 0
    }

    #[inline]
    pub(crate) fn expire_at_ms(self) -> u64 {
        self.u64(16)
    }

    #[inline]
    pub(crate) fn space(self) -> u32 {
        self.u32(24)
    }

    #[inline]
    pub(crate) fn is_object(self) -> bool {
        self.word() & OBJECT != 0
    }

    /// Key and value lie in the record.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        !self.is_object() && !self.has_long_key()
    }

    /// The key's length, of a long key's digest with [`LONG_KEY`].
    #[inline]
    pub(crate) fn key_word(self) -> u32 {
        self.u32(28)
    }

    #[inline]
    pub(crate) fn has_long_key(self) -> bool {
        self.key_word() & LONG_KEY != 0
    }

    /// Bytes that the record has of the key.
    #[inline]
    pub(crate) fn key_len(self) -> usize {
        (self.key_word() & !LONG_KEY) as usize
    }

    #[inline]
    pub(crate) fn value_len(self) -> usize {
        self.u32(32) as usize
    }

    #[inline]
    pub(crate) fn capacity(self) -> usize {
        self.u32(36) as usize
    }

    #[inline]
    pub(crate) fn size(self) -> usize {
        record_size(self.key_len(), self.capacity())
    }

    pub(crate) fn kind(self) -> Kind {
        Kind::from_bits(self.word() >> KIND_SHIFT).unwrap_or(Kind::String)
    }

    /// # Safety
    /// The record stays for `'s`, and nobody writes it meanwhile.
    #[inline]
    pub(crate) unsafe fn key<'s>(self) -> &'s [u8] {
        // SAFETY: the key follows the header; lifetime and absence of writers are the caller's.
        unsafe { std::slice::from_raw_parts(self.0.add(HEADER), self.key_len()) }
    }

    /// # Safety
    /// As [`Raw::key`].
    #[inline]
    pub(crate) unsafe fn value<'s>(self) -> &'s [u8] {
        // SAFETY: the value follows the key; the rest is the caller's.
        unsafe { std::slice::from_raw_parts(self.value_ptr(), self.value_len()) }
    }

    /// All of the record.
    ///
    /// # Safety
    /// As [`Raw::key`].
    pub(crate) unsafe fn bytes<'s>(self) -> &'s [u8] {
        // SAFETY: handed on.
        unsafe { std::slice::from_raw_parts(self.0, self.size()) }
    }

    #[inline]
    pub(crate) fn value_ptr(self) -> *mut u8 {
        // SAFETY: inside the record: capacity bytes follow the key.
        unsafe { self.0.add(HEADER + self.key_len()) }
    }

    /// The access clock is the one field that readers write, under a shared latch: hence atomic.
    #[inline]
    pub(crate) fn access(self) -> u32 {
        self.access_cell().load(Ordering::Relaxed)
    }

    #[inline]
    fn access_cell<'s>(self) -> &'s AtomicU32 {
        // SAFETY: 4-aligned, in the header, and only ever accessed as an atomic once the record is published.
        unsafe { &*self.0.add(12).cast::<AtomicU32>() }
    }

    /// # Safety
    /// The record lies in memory that may be written.
    #[inline]
    pub(crate) unsafe fn set_access(self, clock: u32) {
        self.access_cell().store(clock, Ordering::Relaxed);
    }

    /// # Safety
    /// As [`Raw::key`].
    pub(crate) unsafe fn view<'s>(self, address: Address, tier: Tier) -> RecordView<'s> {
        // SAFETY: handed on.
        let (key, value) = unsafe { (self.key(), self.value()) };
        RecordView {
            space: self.space(),
            key,
            value,
            kind: self.kind(),
            expire_at_ms: self.expire_at_ms(),
            tier,
            address,
            access: self.access(),
            size: self.size(),
            object: None,
        }
    }

    /// What the record of an object has for a value.
    ///
    /// # Safety
    /// As [`Raw::key`].
    pub(crate) unsafe fn descriptor(self) -> Option<Descriptor> {
        if !self.is_object() {
            return None;
        }
        // SAFETY: handed on.
        Descriptor::decode(unsafe { self.value() })
    }

    /// # Safety
    /// `size` bytes from here are the caller's alone.
    pub(crate) unsafe fn write_new(self, new: &NewRecord<'_>) {
        let capacity = new.size - HEADER - new.key.len();
        debug_assert!(new.size.is_multiple_of(ALIGN) && new.value_len <= capacity);
        debug_assert!(new.previous <= ADDRESS_MASK);
        let word = new.previous
            | VERSION << VERSION_SHIFT
            | (new.kind as u64) << KIND_SHIFT
            | if new.tombstone { TOMBSTONE } else { 0 }
            | if new.object { OBJECT } else { 0 };
        let key_word = new.key.len() as u32 | if new.long_key { LONG_KEY } else { 0 };
        // SAFETY: the caller owns `size` bytes; header, key and parts fit as asserted above.
        unsafe {
            let at = self.0;
            at.cast::<u64>().write(word);
            at.add(8).cast::<u32>().write(0);
            at.add(12).cast::<u32>().write(new.access);
            at.add(16).cast::<u64>().write(new.expire_at_ms);
            at.add(24).cast::<u32>().write(new.space);
            at.add(28).cast::<u32>().write(key_word);
            at.add(32).cast::<u32>().write(new.value_len as u32);
            at.add(36).cast::<u32>().write(capacity as u32);
            std::ptr::copy_nonoverlapping(new.key.as_ptr(), at.add(HEADER), new.key.len());
            let mut to = at.add(HEADER + new.key.len());
            for part in new.value {
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
        }
    }

    /// True if `parts` can be written over the value in order: none of them is read from a place in the
    /// value that an earlier part overwrites (a part that already is where it belongs is fine).
    pub(crate) fn may_overwrite(self, parts: &[&[u8]]) -> bool {
        let base = self.value_ptr() as usize;
        let end = base + self.capacity();
        let mut to = base;
        parts.iter().all(|part| {
            let from = part.as_ptr() as usize;
            let outside = from >= end || from + part.len() <= base || part.is_empty();
            let in_place = from == to;
            to += part.len();
            outside || in_place
        })
    }

    /// # Safety
    /// The record is mutable, its bucket latched for writing; the parts fit the capacity and
    /// [`Raw::may_overwrite`] said yes.
    pub(crate) unsafe fn overwrite(self, kind: Kind, expire_at_ms: u64, parts: &[&[u8]], len: usize) {
        debug_assert!(len <= self.capacity());
        let word = self.word() & !(TOMBSTONE | 0xff << KIND_SHIFT) | (kind as u64) << KIND_SHIFT;
        let mut to = self.value_ptr();
        // SAFETY: the caller's contract; `copy` allows the part that already lies where it goes.
        unsafe {
            for part in parts {
                std::ptr::copy(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
            self.0.cast::<u64>().write(word);
            self.0.add(16).cast::<u64>().write(expire_at_ms);
            self.0.add(32).cast::<u32>().write(len as u32);
        }
    }

    /// # Safety
    /// The record is mutable and its bucket latched for writing.
    pub(crate) unsafe fn set_expiry(self, expire_at_ms: u64) {
        // SAFETY: the caller's contract.
        unsafe { self.0.add(16).cast::<u64>().write(expire_at_ms) }
    }

    /// # Safety
    /// As [`Raw::set_expiry`].
    pub(crate) unsafe fn set_tombstone(self) {
        // SAFETY: the caller's contract.
        unsafe {
            self.0.cast::<u64>().write(self.word() & !OBJECT | TOMBSTONE);
            self.0.add(32).cast::<u32>().write(0);
        }
    }

    /// # Safety
    /// As [`Raw::set_expiry`].
    pub(crate) unsafe fn set_previous(self, previous: Address) {
        // SAFETY: the caller's contract.
        unsafe { self.0.cast::<u64>().write(self.word() & !ADDRESS_MASK | previous) }
    }

    /// Covers the rest of a page.
    ///
    /// # Safety
    /// The 8 bytes from here are the caller's alone.
    pub(crate) unsafe fn write_filler(self) {
        // SAFETY: the caller's contract.
        unsafe { self.0.cast::<u64>().write(FILLER | VERSION << VERSION_SHIFT) }
    }
}

/// Why bytes are not the record that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record's checksum does not match")]
    Checksum,
    #[error("the record has format version {0}, this build reads {VERSION}")]
    Version(u8),
    #[error("the record's lengths are impossible")]
    Lengths,
    #[error("the record is a filler or of an unknown type")]
    NotAValue,
}

/// Size of the record whose header `bytes` begins with, checked for plausibility only. `room` is what is
/// left of its page.
pub(crate) fn peek_size(bytes: &[u8], room: usize) -> Result<usize, RecordError> {
    if bytes.len() < HEADER {
        return Err(RecordError::Lengths);
    }
    let word = u64_at(bytes, 0);
    if word >> VERSION_SHIFT & 0xf != VERSION {
        return Err(RecordError::Version((word >> VERSION_SHIFT & 0xf) as u8));
    }
    if word & FILLER != 0 || Kind::from_bits(word >> KIND_SHIFT).is_none() {
        return Err(RecordError::NotAValue);
    }
    let (value, capacity) = (u32_at(bytes, 32) as usize, u32_at(bytes, 36) as usize);
    let size = record_size(key_len_at(bytes), capacity);
    let is_short = word & OBJECT != 0 && value != DESCRIPTOR;
    if value > capacity || size > room || is_short { Err(RecordError::Lengths) } else { Ok(size) }
}

/// Checks the record that `bytes` begins with against its checksum and the address it was read from.
pub(crate) fn verify(bytes: &[u8], address: Address, room: usize) -> Result<usize, RecordError> {
    let size = peek_size(bytes, room)?;
    if bytes.len() < size {
        return Err(RecordError::Lengths);
    }
    if checksum(bytes, address) != u32_at(bytes, 8) { Err(RecordError::Checksum) } else { Ok(size) }
}

/// A record in bytes that [`verify`] accepted.
pub(crate) struct RawRecord<'a>(pub &'a [u8]);

impl<'a> RawRecord<'a> {
    pub(crate) fn space(&self) -> u32 {
        u32_at(self.0, 24)
    }

    /// Of a long key its digest.
    pub(crate) fn key(&self) -> &'a [u8] {
        &self.0[HEADER..HEADER + key_len_at(self.0)]
    }

    pub(crate) fn has_long_key(&self) -> bool {
        u32_at(self.0, 28) & LONG_KEY != 0
    }

    /// What an object's record has for a value.
    pub(crate) fn descriptor(&self) -> Option<Descriptor> {
        match u64_at(self.0, 0) & OBJECT {
            0 => None,
            _ => Descriptor::decode(&self.0[HEADER + key_len_at(self.0)..]),
        }
    }
}

/// Over header, key and value, not the slack, and over the address, so that a record found at the wrong
/// place is no record.
fn checksum(bytes: &[u8], address: Address) -> u32 {
    let end = HEADER + key_len_at(bytes) + u32_at(bytes, 32) as usize;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&address.to_le_bytes()), &bytes[..8]);
    crc32c::crc32c_append(sum, &bytes[12..end])
}

/// Of a filler, and of where it is.
fn filler_sum(word: u64, address: Address) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&address.to_le_bytes()), &word.to_le_bytes())
}

/// What lies in a sealed page, at an address that a record or a filler begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A whole record of so many bytes, verified.
    Record(usize),
    /// No record follows in the page.
    End,
    /// More bytes are needed to tell.
    Cut,
}

/// What `bytes` begin with; they are those at `address`, to where its page ends there are `room`. A filler is believed only
/// if it was sealed: what it hides would be lost if it were none.
pub(crate) fn next_in_page(bytes: &[u8], address: Address, room: usize) -> Result<Next, RecordError> {
    if bytes.len() < HEADER.min(room) {
        return Ok(Next::Cut);
    }
    if room < HEADER {
        return Ok(Next::End);
    }
    let word = u64_at(bytes, 0);
    if word & FILLER != 0 {
        let is_sealed = u32_at(bytes, 8) == filler_sum(word, address);
        return if is_sealed { Ok(Next::End) } else { Err(RecordError::Checksum) };
    }
    match peek_size(bytes, room)? {
        size if size > bytes.len() => Ok(Next::Cut),
        _ => verify(bytes, address, room).map(Next::Record),
    }
}

/// What begins at a place of a page that nobody writes any more, for its checksum.
pub(crate) enum Sealing {
    /// A record of so many bytes; of an object's, where in the page its descriptor lies, and the descriptor.
    Record { size: usize, object: Option<(usize, Descriptor)> },
    /// Nothing follows in the page.
    Filler,
    /// Neither: only a bug can make it.
    Nothing,
}

/// Bytes of a record or filler up to the end of its checksum.
pub(crate) const SEAL_ENDS: usize = 12;

/// What begins at `at` of `page`.
pub(crate) fn seal_at(page: &[u8], at: usize) -> Sealing {
    let bytes = &page[at..];
    let word = u64_at(bytes, 0);
    if word & FILLER != 0 {
        return Sealing::Filler;
    }
    let Ok(size) = peek_size(bytes, bytes.len()) else { return Sealing::Nothing };
    let value = HEADER + key_len_at(bytes);
    let object = (word & OBJECT != 0).then(|| {
        let descriptor = Descriptor::decode(&bytes[value..size]);
        (at + value, descriptor.expect("an object's record has room for its descriptor"))
    });
    Sealing::Record { size, object }
}

impl Sealing {
    /// The checksum of `bytes`, which begin with this and belong at `address`. `None`: it gets none.
    pub(crate) fn sum(&self, bytes: &[u8], address: Address) -> Option<u32> {
        match self {
            Self::Record { size, .. } => Some(checksum(&bytes[..*size], address)),
            // A filler without room for a record needs none: nothing else can be there.
            Self::Filler => (bytes.len() >= HEADER).then(|| filler_sum(u64_at(bytes, 0), address)),
            Self::Nothing => None,
        }
    }
}

/// Bytes of the key in the record that `bytes` begins with.
fn key_len_at(bytes: &[u8]) -> usize {
    (u32_at(bytes, 28) & !LONG_KEY) as usize
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}
