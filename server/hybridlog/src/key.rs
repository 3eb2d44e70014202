//! A key and its hash.

use crate::record::DIGEST;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_inline};

/// What the hash depends on besides the key: random per server, so that a client cannot aim at one bucket.
#[derive(Clone, Copy, Debug)]
pub struct HashSeed(RapidSecrets, RapidSecrets);

impl HashSeed {
    pub fn new(seed: u64) -> Self {
        Self(RapidSecrets::seed(seed), RapidSecrets::seed(seed.rotate_left(32) ^ 0x6a09_e667_f3bc_c908))
    }

    /// What stands for a key that is too long for its record: its length and two hashes of different secrets. Two keys of
    /// one digest, which chance makes one in 10³⁸, are not told apart.
    pub(crate) fn digest(&self, key: &Key<'_>) -> [u8; DIGEST] {
        let mut digest = [0; DIGEST];
        digest[..8].copy_from_slice(&(key.bytes.len() as u64).to_le_bytes());
        digest[8..16].copy_from_slice(&key.hash.to_le_bytes());
        let second = rapidhash_v3_inline::<true, false, false>(key.bytes, &self.1);
        digest[16..].copy_from_slice(&second.to_le_bytes());
        digest
    }
}

/// The hash in a digest.
pub(crate) fn hash_in(digest: &[u8]) -> u64 {
    u64::from_le_bytes(digest[8..16].try_into().expect("a digest has 24 bytes"))
}

/// A key of one database generation. The low bits of `hash` choose the bucket, the highest 16 are the tag.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// Database generation.
    pub space: u32,
    pub bytes: &'a [u8],
    pub hash: u64,
}

impl<'a> Key<'a> {
    #[inline]
    pub fn new(seed: &HashSeed, space: u32, bytes: &'a [u8]) -> Self {
        let hash = rapidhash_v3_inline::<true, false, false>(bytes, &seed.0);
        // The hash is mixed already: any constant per space keeps it uniform.
        Self { space, bytes, hash: hash ^ u64::from(space).wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_and_space_change_the_hash() {
        let (a, b) = (HashSeed::new(1), HashSeed::new(2));
        assert_eq!(Key::new(&a, 3, b"key").hash, Key::new(&a, 3, b"key").hash);
        assert_ne!(Key::new(&a, 3, b"key").hash, Key::new(&b, 3, b"key").hash);
        assert_ne!(Key::new(&a, 3, b"key").hash, Key::new(&a, 4, b"key").hash);
    }
}
