//! Values that do not lie in their record: larger than a page, or of a form that bytes in a page cannot have.
//!
//! Such a record is marked as an *object* and has a [`Descriptor`] for its value. While the record is in memory, the heap
//! object is found under the descriptor's id in [`Objects`], which owns it. When the record's page is flushed the object is
//! written to an extent of a file of its own, whose place the descriptor in the file names; the object stays in memory until
//! its page leaves it, and is read back with the record from then on.
//!
//! Who may touch an object is decided by the latch of its record's bucket; that it stays while a batch looks at it, by the
//! epochs: what is replaced goes through the collector, what leaves with its page through the table of announced epochs.
//!
//! An extent belongs to one id. It is freed when the record is replaced, deleted, or its space swept; whoever reads an extent
//! that has been freed meanwhile finds that its id is not there any more, and looks the key up again. What a checkpoint names
//! is in [`limbo`] then.
//!
//! An object whose record lies below a checkpoint's cut is written as it was at the cut. If its record dies before, it is an
//! *orphan* until then; if it moves to another record, both have it, and a change copies it, or waits if it is large.

mod descriptor;
mod extents;
#[cfg(not(loom))]
mod grow;
mod large_string;
mod leaving;
mod limbo;
#[cfg(all(test, loom))]
mod loom_registry;
mod moved;
mod registry;
#[cfg(not(loom))]
mod transfer;

pub(crate) use descriptor::{DESCRIPTOR, Descriptor, Extent};
pub(crate) use extents::{EXTENT_HEADER, Extents, NamedExtent, padded};
#[cfg(not(loom))]
pub(crate) use grow::ExtentReserve;
pub(crate) use large_string::LargeString;
pub(crate) use limbo::Cut;
pub(crate) use moved::MovedRecords;
#[cfg(test)]
pub(crate) use registry::COPIED_MAX;
pub(crate) use registry::{Moved, Objects};
#[cfg(not(loom))]
pub(crate) use transfer::{ExtentError, read_extent, verify_extent, write_page_objects};

use crate::record::Kind;
use std::any::Any;

/// A value on the heap that a record owns. Changed only through [`crate::Pinned::update_object`].
pub trait Object: Any + Send + Sync {
    /// Bytes of the written form.
    fn written_len(&self) -> usize;
    /// Appends the written form: [`Object::written_len`] bytes.
    fn write(&self, out: &mut Vec<u8>);
    /// The written form, if that is how it lies in memory.
    fn as_written(&self) -> Option<&[u8]> {
        None
    }
    /// Bytes of memory it takes.
    fn memory(&self) -> usize;
    /// For the rare change of an object that is just being written to disk.
    fn duplicate(&self) -> Box<dyn Object>;
}

/// Makes an object of its written form; `None` if these bytes are none of that type. It is not asked for strings: they are
/// the engine's own.
pub type Decode = fn(Kind, Vec<u8>) -> Option<Box<dyn Object>>;

/// Whatever the type, the bytes as they are.
pub(crate) fn decode_bytes(_: Kind, bytes: Vec<u8>) -> Option<Box<dyn Object>> {
    Some(Box::new(LargeString::new(bytes)))
}

/// An object with what the record has no place for.
pub(crate) struct Stored {
    /// The key, if it is too long for the record.
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) value: Box<dyn Object>,
}

impl Stored {
    /// Bytes of the extent that it is written to, without the padding.
    pub(crate) fn written_len(&self) -> usize {
        self.key_len() + self.value.written_len()
    }

    pub(crate) fn key_len(&self) -> usize {
        self.key.as_ref().map_or(0, |key| key.len())
    }

    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.key_len() + self.value.memory()
    }

    pub(crate) fn duplicate(&self) -> Self {
        Self { key: self.key.clone(), value: self.value.duplicate() }
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({} bytes)", self.written_len())
    }
}
