//! Protobuf's wire format, as far as spans need it.

/// Bytes, field by field. What has its type's default is left out, as proto3 does, where no method says otherwise.
pub(super) struct Wire(Vec<u8>);

/// Where a message began that is not finished; [`Wire::end`] wants it back.
#[derive(Default)]
#[must_use]
pub(super) struct Begun {
    /// Where its length stands, and what place was kept for it.
    at: usize,
    kept: usize,
}

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const BYTES: u32 = 2;
pub(super) const FIXED32: u32 = 5;

/// What stands before a text or message, in a field with a number below 16, takes at most this many bytes.
pub(super) const HEAD_BYTES_MAX: usize = 1 + 10;

/// The key of a field with a number below 16.
pub(super) const fn key_of(field: u32, kind: u32) -> u8 {
    (field << 3 | kind) as u8
}

impl Wire {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Room for what is written later.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.0.resize(self.0.len() + bytes, 0);
    }

    #[inline]
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// The first `used` of these bytes. All are copied, since that takes less than to copy a number that is known only then.
    #[inline]
    pub(super) fn put<const N: usize>(&mut self, bytes: &[u8; N], used: usize) {
        let end = self.0.len() + used;
        self.0.extend_from_slice(bytes);
        self.0.truncate(end);
    }

    fn key(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.key(field, VARINT);
            self.varint(value);
        }
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

    /// Begins a message whose length is not known; so many bytes are kept for it, of as many as it may need.
    #[inline]
    pub(super) fn begin(&mut self, field: u32, kept: usize) -> Begun {
        self.key(field, BYTES);
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 2][..kept]);
        Begun { at, kept }
    }

    #[inline]
    pub(super) fn end(&mut self, Begun { at, kept }: Begun) {
        let body = at + kept;
        let mut len = self.0.len() - body;
        let needed = len_of_varint(len as u64);
        if needed != kept {
            self.move_body(body, at + needed);
        }
        for byte in &mut self.0[at..at + needed - 1] {
            *byte = len as u8 | 0x80;
            len >>= 7;
        }
        self.0[at + needed - 1] = len as u8;
    }

    /// Moves everything from `body` on to `to`.
    #[cold]
    fn move_body(&mut self, body: usize, to: usize) {
        let end = self.0.len();
        self.0.resize(end.max(end - body + to), 0);
        self.0.copy_within(body..end, to);
        self.0.truncate(end - body + to);
    }
}

/// Bytes of a number.
#[inline]
pub(super) fn len_of_varint(value: u64) -> usize {
    // 7 bits a byte; 0 takes one too. Like a division of the bits by 7, rounded up: exact up to 64.
    ((value | 1).ilog2() as usize * 9 + 73) / 64
}

/// Bytes of a text or message of this length in a field with a number below 16, key and length included.
pub(super) fn len_of_field(len: usize) -> usize {
    1 + len_of_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_as_long_as_it_is_told_beforehand() {
        for bit in 0..64 {
            for number in [1 << bit, (1 << bit) - 1, u64::MAX >> bit] {
                let mut wire = Wire::with_capacity(10);
                wire.varint(number);
                assert_eq!(wire.into_bytes().len(), len_of_varint(number), "{number}");
            }
        }
    }

    #[test]
    fn a_length_takes_as_many_bytes_as_it_needs() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut known = Wire::with_capacity(0);
            known.bytes(3, &vec![7; len]);
            let known = known.into_bytes();
            assert_eq!(known.len(), len_of_field(len), "{len}");
            for kept in [1, 2] {
                let mut found = Wire::with_capacity(0);
                let begun = found.begin(3, kept);
                found.raw(&vec![7; len]);
                found.end(begun);
                assert!(known == found.into_bytes(), "{len} {kept}");
            }
        }
    }
}
