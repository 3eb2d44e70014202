//! Names of the schema as fields, made by the compiler.

use ferrite_telemetry::{Attribute, SpanName};

use super::wire::{BYTES, key_of};

/// Bytes that are taken in one go, whatever of them is used.
const ENCODED_BYTES: usize = 40;

/// What is written for a name.
#[derive(Clone, Copy)]
pub(super) struct Encoded {
    pub bytes: [u8; ENCODED_BYTES],
    /// Of them.
    pub len: usize,
}

/// `Span.name`, by the name.
pub(super) static NAMES: [Encoded; SpanName::ALL.len()] = {
    let mut names = [Encoded::EMPTY; SpanName::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Encoded::EMPTY.with_text(5, SpanName::ALL[at].as_str());
        at += 1;
    }
    names
};

/// `KeyValue.key` and the key of `KeyValue.value`, by the attribute.
pub(super) static KEYS: [Encoded; Attribute::ALL.len()] = {
    let mut keys = [Encoded::EMPTY; Attribute::ALL.len()];
    let mut at = 0;
    while at < keys.len() {
        keys[at] = Encoded::EMPTY.with_text(1, Attribute::ALL[at].as_str()).with_byte(key_of(2, BYTES));
        at += 1;
    }
    keys
};

impl Encoded {
    const EMPTY: Self = Self { bytes: [0; ENCODED_BYTES], len: 0 };

    const fn with_byte(mut self, byte: u8) -> Self {
        self.bytes[self.len] = byte;
        self.len += 1;
        self
    }

    /// The compiler refuses a name that does not fit.
    const fn with_text(self, field: u32, text: &str) -> Self {
        let text = text.as_bytes();
        let mut encoded = self.with_byte(key_of(field, BYTES)).with_byte(text.len() as u8);
        let mut at = 0;
        while at < text.len() {
            encoded = encoded.with_byte(text[at]);
            at += 1;
        }
        encoded
    }
}
