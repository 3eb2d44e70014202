//! Records read from disk for the command at hand.

use crate::address::Address;
use crate::objects::Stored;
use crate::record::Raw;
use ferrite_io::AlignedBuf;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// One verified record in its read buffer. Cloning shares the buffer.
#[derive(Clone, Debug)]
pub struct HeldRecord {
    buf: Rc<AlignedBuf>,
    offset: usize,
    len: usize,
    /// What the record owns, if it is an object.
    object: Option<Arc<Stored>>,
}

impl HeldRecord {
    /// `buf[offset..offset + len]` is a whole record whose checksum was verified.
    pub(crate) fn new(buf: Rc<AlignedBuf>, offset: usize, len: usize) -> Self {
        debug_assert!(offset + len <= buf.len());
        Self { buf, offset, len, object: None }
    }

    pub(crate) fn with_object(self, object: Arc<Stored>) -> Self {
        Self { object: Some(object), ..self }
    }

    /// The object, if it was read too.
    pub(crate) fn object(&self) -> Option<&Arc<Stored>> {
        self.object.as_ref()
    }

    /// Bytes of the whole record.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.offset..self.offset + self.len]
    }

    /// Bytes of the value alone.
    pub fn value_len(&self) -> usize {
        self.object.as_ref().map_or_else(|| self.raw().value_len(), |object| object.value.written_len())
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
    pub fn insert(&mut self, address: Address, record: HeldRecord) {
        self.records.insert(address, record);
    }

    #[inline]
    pub fn get(&self, address: Address) -> Option<&HeldRecord> {
        if self.records.is_empty() { None } else { self.records.get(&address) }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes of the buffers held.
    pub fn bytes(&self) -> usize {
        self.records.values().map(|record| record.buf.len() + record.object().map_or(0, |object| object.memory())).sum()
    }

    #[inline]
    pub fn clear(&mut self) {
        // After every batch; most hold nothing.
        if !self.records.is_empty() {
            self.records.clear();
        }
    }
}
