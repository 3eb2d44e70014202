//! Keys that are not to be told: neither by spans, nor by the flight recorder, nor by log lines. So they are changed before
//! they are recorded. Values are never recorded at all.

use std::borrow::Cow;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// What is recorded of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// The key.
    #[default]
    Shown,
    /// `#` and 16 hexadecimal digits, the same for the same key and salt. Who knows the salt can try keys out.
    Hashed { salt: [u64; 2] },
    /// Nothing.
    Dropped,
}

/// Digits of a hashed key, with what is in front of them.
const HASHED_BYTES: usize = 17;

impl Keys {
    /// Hashed with this salt.
    pub fn hashed(salt: &str) -> Self {
        // Two halves by two keys; any will do.
        let half = |key: u64| {
            let mut hasher = SipHasher13::new_with_keys(key, !key);
            hasher.write(salt.as_bytes());
            hasher.finish()
        };
        Self::Hashed { salt: [half(0), half(1)] }
    }

    /// What may be told of a key; `None`: nothing.
    pub fn shown(self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Shown => Some(key.into()),
            Self::Hashed { salt } => Some(digits(salt, key).to_vec().into()),
            Self::Dropped => None,
        }
    }
}

/// Without an allocation.
pub(crate) fn digits(salt: [u64; 2], key: &[u8]) -> [u8; HASHED_BYTES] {
    let mut hasher = SipHasher13::new_with_keys(salt[0], salt[1]);
    hasher.write(key);
    let hash = hasher.finish();
    let mut text = [b'#'; HASHED_BYTES];
    for (at, digit) in text[1..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(hash >> (60 - 4 * at)) as usize & 15];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_tells_keys_apart_and_salts_too() {
        let hashed = |salt, key: &str| {
            String::from_utf8(Keys::hashed(salt).shown(key.as_bytes()).expect("it is told").into_owned())
                .expect("ASCII")
        };
        let one = hashed("s", "user:1");
        assert_eq!((one.len(), &one[..1], &hashed("s", "user:1")), (17, "#", &one));
        assert!(one[1..].bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(hashed("s", "user:2"), one);
        assert_ne!(hashed("t", "user:1"), one);
        assert_eq!(Keys::Dropped.shown(b"k"), None);
        assert_eq!(Keys::Shown.shown(b"k").as_deref(), Some(&b"k"[..]));
    }
}
