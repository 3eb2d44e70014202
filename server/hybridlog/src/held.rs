//! Records read from disk for the command at hand.

use crate::address::Address;
use crate::objects::{Part, Stored};
use crate::record::{HEADER, Raw};
use crate::spares::Lent;
use ferrite_io::AlignedBuf;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

/// Where a record's bytes are; 8-aligned.
#[derive(Clone, Debug)]
enum Buffer {
    /// As they were read, with what is around them in its blocks.
    Read(Rc<AlignedBuf>),
    /// The same in a buffer that is used again.
    Lent(Rc<Lent>),
    /// In the read cache, or until lately.
    Copied(Arc<[u64]>),
}

impl Buffer {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Read(buf) => buf,
            Self::Lent(buf) => buf,
            Self::Copied(words) => bytemuck::cast_slice(words),
        }
    }
}

/// One verified record in its read buffer. Cloning shares the buffer.
#[derive(Clone, Debug)]
pub struct HeldRecord {
    buf: Buffer,
    offset: usize,
    len: usize,
    /// What the record owns, if it is an object and was read too.
    object: Option<ReadObject>,
    /// The key, if it is too long for the record and came with the object.
    long_key: Option<Rc<[u8]>>,
    /// A part of the value, if that was asked for alone.
    part: Option<Rc<Part>>,
}

/// An object that was read, until a change takes it into memory: then all who waited for the same read have it no more, and find
/// the new record of its key.
type ReadObject = Rc<RefCell<Option<Arc<Stored>>>>;

impl HeldRecord {
    /// `buf[offset..offset + len]` is a whole record whose checksum was verified.
    pub(crate) fn new(buf: Rc<AlignedBuf>, offset: usize, len: usize) -> Self {
        debug_assert!(offset + len <= buf.len());
        Self { buf: Buffer::Read(buf), offset, len, object: None, long_key: None, part: None }
    }

    /// [`HeldRecord::new`] in a buffer that is used again.
    pub(crate) fn lent(buf: Lent, offset: usize, len: usize) -> Self {
        debug_assert!(offset + len <= buf.len());
        Self { buf: Buffer::Lent(Rc::new(buf)), offset, len, object: None, long_key: None, part: None }
    }

    /// A whole record that was verified when it was read.
    pub(crate) fn copied(words: Arc<[u64]>) -> Self {
        Self {
            len: size_of_val(&*words),
            buf: Buffer::Copied(words),
            offset: 0,
            object: None,
            long_key: None,
            part: None,
        }
    }

    /// [`HeldRecord::bytes`], of which there is a multiple of 8.
    pub(crate) fn words(&self) -> &[u64] {
        bytemuck::cast_slice(self.bytes())
    }

    /// What is read where a record was and is not any more. Nobody finds it: who looks its key up again passes that address by.
    pub(crate) fn gone() -> Self {
        Self::new(Rc::new(AlignedBuf::zeroed(HEADER)), 0, HEADER)
    }

    pub(crate) fn copy_of(record: &[u8]) -> Self {
        Self::new(Rc::new(AlignedBuf::copy_of(record)), 0, record.len())
    }

    pub(crate) fn with_object(self, object: Arc<Stored>) -> Self {
        debug_assert!(self.part.is_none());
        let long_key = object.key.as_deref().map(Rc::from);
        Self { object: Some(Rc::new(RefCell::new(Some(object)))), long_key, ..self }
    }

    pub(crate) fn with_part(self, part: Part) -> Self {
        Self { part: Some(Rc::new(part)), ..self }
    }

    /// These bytes of the value that the record owns, if they were read alone.
    pub(crate) fn part(&self, range: &Range<usize>) -> Option<&[u8]> {
        self.part.as_ref()?.get(range)
    }

    /// The object, if it was read too and nobody has taken it. It stays where it is until that is done, and longer while the one
    /// who takes it is pinned.
    pub(crate) fn object(&self) -> Option<NonNull<Stored>> {
        self.object.as_ref()?.borrow().as_deref().map(NonNull::from)
    }

    fn part_bytes(&self) -> usize {
        self.part.as_ref().map_or(0, |part| part.bytes.len())
    }

    fn take_object(&self) -> Option<Arc<Stored>> {
        self.object.as_ref()?.take()
    }

    fn object_value<T>(&self, f: impl FnOnce(&Stored) -> T) -> Option<T> {
        self.object.as_ref()?.borrow().as_deref().map(f)
    }

    /// Bytes of the whole record.
    pub fn bytes(&self) -> &[u8] {
        &self.buf.bytes()[self.offset..self.offset + self.len]
    }

    /// Bytes of memory that it keeps, but for an object.
    pub fn buffer_bytes(&self) -> usize {
        self.buf.bytes().len()
    }

    /// Bytes of the value alone, as far as it was read.
    pub fn value_len(&self) -> usize {
        let of_object = self.object_value(|object| object.value.written_len());
        let of_part = || self.part.as_ref().map(|part| part.bytes.len());
        of_object.or_else(of_part).unwrap_or_else(|| self.raw().value_len())
    }

    /// Bytes of the extent in which its object lies; 0 if it has none.
    pub(crate) fn extent_bytes(&self) -> u64 {
        // SAFETY: nobody writes a held record.
        unsafe { self.raw().descriptor() }.and_then(|descriptor| descriptor.extent).map_or(0, |extent| extent.len)
    }

    /// Nothing is missing: the record is no object, or that was read too.
    pub fn is_whole(&self) -> bool {
        !self.raw().is_object() || self.object().is_some()
    }

    /// The key; `None`: it is too long for the record, and what that owns was not read.
    pub fn key(&self) -> Option<&[u8]> {
        let raw = self.raw();
        match raw.has_long_key() {
            true => self.long_key.as_deref(),
            // SAFETY: nobody writes a held record, which stays as long as it is borrowed.
            false => Some(unsafe { raw.key() }),
        }
    }

    pub(crate) fn raw(&self) -> Raw {
        // SAFETY: a verified record, 8-aligned because blocks and addresses are; it is only read through this.
        unsafe { Raw::new(self.bytes().as_ptr().cast_mut()) }
    }
}

/// Address → record, held by a session until its batch ends. Empty it costs nothing.
#[derive(Default, Debug)]
pub struct Held {
    records: BTreeMap<Address, HeldRecord>,
}

impl Held {
    /// A record that is held with what it owns stays so if it was read once more without that.
    pub fn insert(&mut self, address: Address, record: HeldRecord) {
        let held = self.records.entry(address).or_insert_with(|| record.clone());
        if record.object.is_some() || (held.object.is_none() && record.part.is_some()) {
            *held = record;
        }
    }

    #[inline]
    pub fn get(&self, address: Address) -> Option<&HeldRecord> {
        if self.records.is_empty() { None } else { self.records.get(&address) }
    }

    /// The object of a record at `address`, or with that id whichever its record was when it was read: compaction moves
    /// records, not their objects.
    pub(crate) fn object_of(&self, address: Address, id: u64) -> Option<NonNull<Stored>> {
        self.find_object(address, id, HeldRecord::object)
    }

    /// [`Held::object_of`] for who makes it the object of a record in memory: it is not here any more.
    pub(crate) fn take_object_of(&self, address: Address, id: u64) -> Option<Arc<Stored>> {
        self.find_object(address, id, HeldRecord::take_object)
    }

    fn find_object<T>(&self, address: Address, id: u64, get: fn(&HeldRecord) -> Option<T>) -> Option<T> {
        let is_it = |record: &&HeldRecord| {
            // SAFETY: nobody writes a held record.
            unsafe { record.raw().descriptor() }.is_some_and(|descriptor| descriptor.id == id)
        };
        let own = self.records.get(&address).and_then(get);
        own.or_else(|| self.records.values().filter(is_it).find_map(get))
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Gives up what has a value of more than so many bytes.
    pub fn release_above(&mut self, bytes: usize) {
        self.records.retain(|_, record| record.value_len() <= bytes);
    }

    /// Bytes of the buffers held.
    pub fn bytes(&self) -> usize {
        self.records
            .values()
            .map(|record| {
                record.buf.bytes().len() + record.object_value(Stored::memory).unwrap_or(0) + record.part_bytes()
            })
            .sum()
    }

    #[inline]
    pub fn clear(&mut self) {
        // After every batch; most hold nothing.
        if !self.records.is_empty() {
            self.records.clear();
        }
    }
}
