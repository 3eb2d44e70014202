//! Pages of records as the log has them in memory.

use crate::objects::Descriptor;
use crate::record::{FILLER, Kind, NewRecord, Raw, VERSION, record_size};

/// Records with keys of these lengths, every third one an object's with its number as id, the others with so many bytes of
/// value; behind them a filler of so many words.
pub(crate) fn page(keys: &[usize], value: usize, filler: usize) -> Vec<u8> {
    let (mut words, other): (Vec<u64>, _) = (Vec::new(), vec![b'v'; value]);
    for (number, &len) in keys.iter().enumerate() {
        let (key, id) = (vec![number as u8; len], number as u64);
        let (object, descriptor) = (number % 3 == 0, Descriptor::in_memory(id).encode());
        let value: &[u8] = if object { &descriptor } else { &other };
        let size = record_size(len, value.len());
        let at = words.len();
        words.resize(at + size / 8, 0);
        let new = NewRecord {
            previous: 0,
            space: 0,
            key: &key,
            long_key: false,
            kind: Kind::Hash,
            object,
            tombstone: false,
            expire_at_ms: 0,
            access: 0,
            value: &[value],
            value_len: value.len(),
            size,
        };
        // SAFETY: the vector is 8-aligned and has `size` bytes from `at` on.
        unsafe { Raw::new(words[at..].as_mut_ptr().cast()).write_new(&new) };
    }
    if filler > 0 {
        words.push(FILLER | VERSION << 48);
        words.resize(words.len() + filler - 1, 7);
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
