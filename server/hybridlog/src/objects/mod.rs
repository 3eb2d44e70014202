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
mod load;
#[cfg(all(test, loom))]
mod loom_registry;
mod moved;
#[cfg(not(loom))]
mod part;
mod registry;
mod remains;
mod sums;
#[cfg(not(loom))]
mod transfer;
#[cfg(not(loom))]
mod whole_read;

pub(crate) use descriptor::{DESCRIPTOR, Descriptor, Extent};
pub(crate) use extents::{EXTENT_HEADER, Extents, NamedExtent, padded};
#[cfg(not(loom))]
pub(crate) use grow::ExtentReserve;
pub(crate) use large_string::LargeString;
pub(crate) use limbo::Cut;
#[cfg(all(test, not(loom)))]
pub(crate) use load::Bytes;
pub(crate) use load::decode_bytes;
pub use load::{Decode, Load};
pub(crate) use moved::MovedRecords;
#[cfg(not(loom))]
pub(crate) use part::{Part, has_parts, read_part};
#[cfg(test)]
pub(crate) use registry::COPIED_MAX;
pub(crate) use registry::{Moved, Objects};
pub(crate) use remains::{FREED_IN_ONE_GO, Remains};
#[cfg(test)]
pub(crate) use sums::SUMMED;
#[cfg(not(loom))]
pub(crate) use transfer::{ExtentError, read_extent, verify_extent, write_page_objects};
#[cfg(all(test, not(loom)))]
pub(crate) use transfer::{IN_ONE_GO, LOADED_IN_ONE_GO};

use std::any::Any;

/// A value on the heap that a record owns. Changed only through [`crate::Pinned::update_object`].
pub trait Object: Any + Send + Sync {
    /// Bytes of the written form.
    fn written_len(&self) -> usize;
    /// Fills `out` with what the written form has from `from` on; where it goes on behind that. `out` is not longer than what is
    /// left. Between two parts the object does not change, but a worker does other things: it is asked for little at a time.
    fn write_part(&self, from: Spot, out: &mut [u8]) -> Spot;
    /// The written form, if that is how it lies in memory.
    fn as_written(&self) -> Option<&[u8]> {
        None
    }
    /// Bytes of memory it takes.
    fn memory(&self) -> usize;
    /// Frees a part of what it holds, no more than some ten microseconds take; false: what is left is freed in as little time.
    /// Nobody looks at it any more: what is left is no value, but for [`Object::memory`].
    fn shed(&mut self) -> bool;
    /// For the rare change of an object that is just being written to disk.
    fn duplicate(&self) -> Box<dyn Object>;
}

/// A place in an object's written form, in the object's own terms; the default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    pub element: u64,
    /// Bytes of that element's written form that lie before the place.
    pub byte: usize,
}

/// An object with what the record has no place for. If it is large it does not go with who drops it, but is left to [`Remains`].
pub(crate) struct Stored {
    /// The key, if it is too long for the record.
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) value: Box<dyn Object>,
    remains: std::sync::Arc<Remains>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        if self.value.memory() > FREED_IN_ONE_GO {
            self.remains.take(std::mem::replace(&mut self.value, Box::new(remains::Nothing)));
        }
    }
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
        Self { key: self.key.clone(), value: self.value.duplicate(), remains: self.remains.clone() }
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({} bytes)", self.written_len())
    }
}
