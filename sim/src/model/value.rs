//! What a key holds.

use std::fmt;

use crate::resp::Shown;

/// A value; a hash's fields in the order in which they were added.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    String(Vec<u8>),
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
}

/// Bytes before the fields of a hash in a record.
const HASH_HEADER: usize = 4;

impl Value {
    /// Bytes that the server's record takes for it.
    pub fn size(&self) -> usize {
        // Each field and value has its length in front, seven bits in a byte.
        let string = |bytes: &[u8]| {
            let length_bytes = (1..).find(|&count| bytes.len() >> (7 * count) == 0).expect("lengths end");
            length_bytes as usize + bytes.len()
        };
        match self {
            Value::String(bytes) => bytes.len(),
            Value::Hash(pairs) => {
                HASH_HEADER + pairs.iter().map(|(field, value)| string(field) + string(value)).sum::<usize>()
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::String(bytes) => Shown(bytes).fmt(f),
            Value::Hash(pairs) => {
                f.write_str("{")?;
                for (field, value) in pairs {
                    write!(f, " {}: {}", Shown(field), Shown(value))?;
                }
                f.write_str(" }")
            }
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_takes_a_header_and_a_length_for_each_string() {
        let hash = |len| Value::Hash(vec![(b"f".to_vec(), vec![0; len])]);
        assert_eq!([0, 127, 128, 16_384].map(|len| hash(len).size()), [7, 134, 136, 16_393]);
    }
}
