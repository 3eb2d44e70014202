//! Objects made of their written form, which comes part by part: a worker that made one of a million elements in one go would
//! serve nobody meanwhile.

use super::{LargeString, Object};
use crate::record::Kind;

/// An object on its way into memory.
pub trait Load {
    /// The next part of the written form. Parts follow one another, however they are cut.
    fn take(&mut self, part: &[u8]);
    /// The object, now that all parts were there; `None` if these bytes are none of its type.
    fn finish(self: Box<Self>) -> Option<Box<dyn Object>>;
}

/// Begins to make an object of a written form of so many bytes; `None` if this build has no objects of that type. It is not asked
/// for strings: they are the engine's own.
pub type Decode = fn(Kind, usize) -> Option<Box<dyn Load>>;

/// Whatever the type, the bytes as they are.
pub(crate) fn decode_bytes(_: Kind, len: usize) -> Option<Box<dyn Load>> {
    Some(Box::new(Bytes::new(len, |bytes| Some(Box::new(LargeString::new(bytes))))))
}

/// Takes the whole written form before it makes something of it.
pub(crate) struct Bytes {
    bytes: Vec<u8>,
    make: fn(Vec<u8>) -> Option<Box<dyn Object>>,
}

impl Bytes {
    pub(crate) fn new(len: usize, make: fn(Vec<u8>) -> Option<Box<dyn Object>>) -> Self {
        Self { bytes: Vec::with_capacity(len), make }
    }
}

impl Load for Bytes {
    fn take(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
    }

    fn finish(self: Box<Self>) -> Option<Box<dyn Object>> {
        (self.make)(self.bytes)
    }
}
