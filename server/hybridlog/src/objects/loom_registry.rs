//! An object that moves to another record, or dies, while the flush writes it to its extent, in every order. A fault that is
//! planted must make its model fail.

use super::{Descriptor, Extent, Moved, Object, Objects, Spot, decode_bytes, padded};
use crate::mutant::Mutant;
use crate::reclaim::Reclaim;
use crate::sync::Arc;
use loom::cell::UnsafeCell;

/// A number whose reads and writes loom looks at.
struct Number(UnsafeCell<u32>);

// SAFETY: loom checks the accesses to the number.
unsafe impl Send for Number {}
// SAFETY: loom checks the accesses to the number.
unsafe impl Sync for Number {}

impl Number {
    fn get(&self) -> u32 {
        // SAFETY: that nobody writes it meanwhile is what the model checks.
        self.0.with(|number| unsafe { *number })
    }
}

impl Object for Number {
    fn written_len(&self) -> usize {
        4
    }

    fn write_part(&self, from: Spot, out: &mut [u8]) -> Spot {
        out.copy_from_slice(&self.get().to_le_bytes()[from.byte..][..out.len()]);
        Spot { byte: from.byte + out.len(), ..from }
    }

    fn memory(&self) -> usize {
        4
    }

    fn shed(&mut self) -> bool {
        false
    }

    fn duplicate(&self) -> Box<dyn Object> {
        Box::new(Number(UnsafeCell::new(self.get())))
    }
}

const BEFORE: u32 = 7;
const AFTER: u32 = 8;

struct Model {
    objects: Objects,
    reclaim: Reclaim,
    id: u64,
}

impl Model {
    fn new() -> Self {
        let model = Self { objects: Objects::new(decode_bytes, Box::new(|| {})), reclaim: Reclaim::new(), id: 1 };
        let id = model.objects.new_id();
        assert_eq!(id, model.id);
        let value = Box::new(Number(UnsafeCell::new(BEFORE)));
        model.insert(id, 0, Moved { stored: model.objects.stored(None, value), twin: None });
        model
    }

    fn insert(&self, id: u64, page: u64, moved: Moved) {
        assert!(self.objects.extents.promise_to_object(padded(4)));
        self.objects.insert(id, page, moved, padded(4));
    }

    /// The flush, as `write_page_objects` does it. What it wrote, if the object was still there.
    fn flush(&self) -> Option<u32> {
        let (stored, offset) = self.objects.begin_writing(self.id).expect("space was promised")?;
        let mut written = [0; 4];
        let half = stored.value.write_part(Spot::default(), &mut written[..2]);
        stored.value.write_part(half, &mut written[2..]);
        drop(stored);
        self.objects.end_writing(self.id, Extent { offset, len: 4, crc: 0, key_len: 0 });
        Some(u32::from_le_bytes(written))
    }

    /// A command that changes the object, whose record is read-only: it gets a new one.
    fn change(&self) {
        let moved = self.objects.take(self.id).expect("it is in memory");
        let to = self.objects.new_id();
        self.insert(to, 1, moved);
        let stored = self.objects.get_mut(to).expect("just inserted");
        // SAFETY: we have the latch of its record's bucket; that the flush does not read it is what the model checks.
        let value: &dyn std::any::Any = unsafe { &*stored.as_ref().value };
        let number = value.downcast_ref::<Number>().expect("a number");
        // SAFETY: as above.
        number.0.with_mut(|number| unsafe { *number = AFTER });
        self.objects.changed(to, 0);
    }

    fn release(&self, id: u64) {
        self.objects.release(&Descriptor { id, extent: None }, &self.reclaim);
    }

    /// Nothing is left of either record.
    fn is_empty(&self) {
        let stats = self.objects.extents.stats();
        assert_eq!((stats.extents, stats.used_bytes, stats.promised_bytes), (0, 0, 0), "an extent outlives its record");
        assert_eq!((self.objects.bytes(), self.objects.unwritten_bytes()), (0, 0));
    }
}

/// The flush beside `command`; then what is left of the object is released.
fn model(mutant: Option<Mutant>, command: fn(&Model), left: Option<u64>) {
    Mutant::plant(mutant);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 20_000;
    builder.check(move || {
        let model = Arc::new(Model::new());
        let thread = {
            let model = model.clone();
            loom::thread::spawn(move || model.flush())
        };
        command(&model);
        if let Some(written) = thread.join().unwrap() {
            assert_eq!(written, BEFORE, "the page that is written is the one before the change");
        }
        if let Some(id) = left {
            model.release(id);
        }
        model.is_empty();
    });
}

#[test]
fn loom_an_object_moves_and_changes_while_its_extent_is_written() {
    model(None, Model::change, Some(2));
}

#[test]
fn loom_an_object_dies_while_its_extent_is_written() {
    model(None, |model| model.release(model.id), None);
}

#[test]
#[should_panic]
fn loom_catches_a_change_of_what_is_being_written() {
    model(Some(Mutant::ChangedWhileWritten), Model::change, Some(2));
}

#[test]
#[should_panic(expected = "an extent outlives its record")]
fn loom_catches_an_extent_that_outlives_its_record() {
    model(Some(Mutant::WrittenForNobody), |model| model.release(model.id), None);
}
