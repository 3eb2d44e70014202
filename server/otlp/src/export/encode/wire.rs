//! Protobuf's wire format, as far as spans need it.

/// Bytes, field by field. What has its type's default is left out, as proto3 does, where no method says otherwise.
pub(super) struct Wire(Vec<u8>);

/// Where a message began that is not finished; [`Wire::end`] wants it back.
#[must_use]
pub(super) struct Begun {
    /// Where its length stands.
    at: usize,
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

impl Wire {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.chosen(field, value);
        }
    }

    /// A number of a `oneof`: that it is there says something, even if it is 0.
    pub(super) fn chosen(&mut self, field: u32, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.key(field, FIXED64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        if value != 0 {
            self.key(field, FIXED32);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// Also if they are none.
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.head(field, bytes.len());
        self.raw(bytes);
    }

    /// What stands before `len` bytes of a text or message.
    pub(super) fn head(&mut self, field: u32, len: usize) {
        self.key(field, BYTES);
        self.varint(len as u64);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Begins a message whose length is not known. One byte is kept for it: most are short.
    pub(super) fn begin(&mut self, field: u32) -> Begun {
        self.key(field, BYTES);
        self.0.push(0);
        Begun { at: self.0.len() - 1 }
    }

    pub(super) fn end(&mut self, Begun { at }: Begun) {
        let body = at + 1;
        let mut len = self.0.len() - body;
        let more = len_of_varint(len) - 1;
        if more > 0 {
            let end = self.0.len();
            self.0.resize(end + more, 0);
            self.0.copy_within(body..end, body + more);
        }
        for byte in &mut self.0[at..at + more] {
            *byte = len as u8 | 0x80;
            len >>= 7;
        }
        self.0[at + more] = len as u8;
    }
}

fn len_of_varint(value: usize) -> usize {
    // 7 bits a byte; 0 takes one too.
    ((value | 1).ilog2() as usize) / 7 + 1
}

/// Bytes of a text or message of this length in a field with a number below 16, key and length included.
pub(super) fn len_of_field(len: usize) -> usize {
    1 + len_of_varint(len) + len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_as_many_bytes_as_it_needs() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut known = Wire::with_capacity(0);
            known.bytes(3, &vec![7; len]);
            let known = known.into_bytes();
            assert_eq!(known.len(), len_of_field(len), "{len}");
            let mut found = Wire::with_capacity(0);
            let begun = found.begin(3);
            found.raw(&vec![7; len]);
            found.end(begun);
            assert!(known == found.into_bytes(), "{len}");
        }
    }
}
