//! What a key holds.

use std::fmt;

use crate::resp::Shown;

/// A value; a hash's fields in the order in which they were added.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    String(Vec<u8>),
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
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
