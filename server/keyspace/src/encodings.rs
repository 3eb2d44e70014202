//! From where on Redis keeps a collection in another form: what OBJECT ENCODING tells, and whether a scan has pages.

use std::sync::atomic::AtomicUsize;

/// CONFIG's parameters of the same names. They are looked at when a collection is written.
pub struct Encodings {
    pub hash_max_listpack_entries: AtomicUsize,
    /// Bytes of a field or a value.
    pub hash_max_listpack_value: AtomicUsize,
}

impl Default for Encodings {
    fn default() -> Self {
        Encodings { hash_max_listpack_entries: AtomicUsize::new(512), hash_max_listpack_value: AtomicUsize::new(64) }
    }
}
