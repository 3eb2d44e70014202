//! WATCH: who must learn that a key has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// All watched keys. Writers ask [`Registry::is_empty`] first, so that a server without WATCH pays one load.
///
/// Keys are watched by the number of their database, as in Redis: after SWAPDB the watch is on what the number now shows.
#[derive(Default)]
pub(crate) struct Registry {
    /// Number of watches; never too small while a command that could miss one runs.
    count: AtomicUsize,
    watched: Mutex<Watched>,
}

type Watched = BTreeMap<u32, BTreeMap<Box<[u8]>, Vec<Watcher>>>;

struct Watcher {
    dirty: Arc<AtomicBool>,
    /// The key was there, and not expired, when it was watched. It has not changed since while `dirty` is unset.
    existed: bool,
}

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    Changed,
    /// It was removed because its time had come: no change for who saw it as missing already.
    Expired,
}

impl Registry {
    /// A watch is registered under the key's latch, a write looks here under it too: neither can miss the other.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    pub(crate) fn touch(&self, db: u32, key: &[u8], touch: Touch) {
        let watched = self.watched.lock();
        for watcher in watched.get(&db).and_then(|keys| keys.get(key)).into_iter().flatten() {
            if watcher.existed || touch == Touch::Changed {
                watcher.dirty.store(true, Ordering::Release);
            }
        }
    }

    /// The database now shows other keys; `exists` tells whether it shows this one. A key that neither was nor is there
    /// has not changed.
    pub(crate) fn touch_all(&self, db: u32, mut exists: impl FnMut(&[u8]) -> bool) {
        let watched = self.watched.lock();
        for (key, watchers) in watched.get(&db).into_iter().flatten() {
            let exists_now = exists(key);
            for watcher in watchers {
                if watcher.existed || exists_now {
                    watcher.dirty.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Bytes, about: names, and what the maps and each watch need beside.
    pub(crate) fn bytes(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        const KEY: usize = 96;
        let watched = self.watched.lock();
        let keys = watched.values().flatten();
        keys.map(|(key, watchers)| KEY + key.len() + watchers.capacity() * size_of::<Watcher>()).sum()
    }

    fn add(&self, db: u32, key: &[u8], watcher: Watcher) {
        let mut watched = self.watched.lock();
        self.count.fetch_add(1, Ordering::Release);
        watched.entry(db).or_default().entry(key.into()).or_default().push(watcher);
    }

    fn remove(&self, db: u32, key: &[u8], dirty: &Arc<AtomicBool>) {
        let mut watched = self.watched.lock();
        let Some(keys) = watched.get_mut(&db) else { return };
        let Some(watchers) = keys.get_mut(key) else { return };
        if let Some(at) = watchers.iter().position(|watcher| Arc::ptr_eq(&watcher.dirty, dirty)) {
            watchers.swap_remove(at);
            self.count.fetch_sub(1, Ordering::Release);
        }
        if watchers.is_empty() {
            keys.remove(key);
        }
        if keys.is_empty() {
            watched.remove(&db);
        }
    }
}

/// The keys that one connection watches. Dropping it, as clearing it, ends the watches.
#[derive(Default)]
pub struct WatchSet {
    registry: Option<Arc<Registry>>,
    dirty: Arc<AtomicBool>,
    keys: Vec<WatchedKey>,
}

struct WatchedKey {
    db: u32,
    key: Box<[u8]>,
    /// Of a key that was there: its time of expiry, 0 for never. `None`: it was missing or expired.
    expire_at_ms: Option<u64>,
}

impl WatchSet {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Ends all watches.
    pub fn clear(&mut self) {
        for watched in self.keys.drain(..) {
            if let Some(registry) = &self.registry {
                registry.remove(watched.db, &watched.key, &self.dirty);
            }
        }
        if self.is_marked() {
            self.dirty = Arc::default();
        }
    }

    /// A watched key was written.
    pub fn is_marked(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// A watched key was written, or its time has come since.
    pub fn has_changed(&self, now_ms: u64) -> bool {
        let expired = |key: &WatchedKey| key.expire_at_ms.is_some_and(|at| crate::scratch::has_expired(at, now_ms));
        self.is_marked() || self.keys.iter().any(expired)
    }

    pub(crate) fn contains(&self, db: u32, key: &[u8]) -> bool {
        self.keys.iter().any(|watched| watched.db == db && *watched.key == *key)
    }

    /// Under the key's latch or in the exclusive mode. `expire_at_ms` as in [`WatchedKey`].
    pub(crate) fn add(&mut self, registry: &Arc<Registry>, db: u32, key: &[u8], expire_at_ms: Option<u64>) {
        let dirty = Arc::clone(&self.dirty);
        registry.add(db, key, Watcher { dirty, existed: expire_at_ms.is_some() });
        self.registry.get_or_insert_with(|| Arc::clone(registry));
        self.keys.push(WatchedKey { db, key: key.into(), expire_at_ms });
    }
}

impl Drop for WatchSet {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touch_marks_only_who_watches_the_key() {
        let registry = Arc::new(Registry::default());
        let (mut one, mut other) = (WatchSet::default(), WatchSet::default());
        one.add(&registry, 0, b"a", Some(0));
        other.add(&registry, 1, b"a", Some(0));
        registry.touch(0, b"b", Touch::Changed);
        assert!(!one.is_marked());
        registry.touch(0, b"a", Touch::Changed);
        assert!(one.is_marked() && !other.is_marked());
    }

    #[test]
    fn the_expiry_of_a_key_seen_as_missing_is_no_change() {
        let registry = Arc::new(Registry::default());
        let mut set = WatchSet::default();
        set.add(&registry, 0, b"a", None);
        registry.touch(0, b"a", Touch::Expired);
        assert!(!set.is_marked());
        registry.touch_all(0, |_| false);
        assert!(!set.is_marked());
        registry.touch_all(0, |_| true);
        assert!(set.is_marked());
    }

    #[test]
    fn dropping_the_set_empties_the_registry() {
        let registry = Arc::new(Registry::default());
        let mut set = WatchSet::default();
        set.add(&registry, 0, b"a", None);
        set.add(&registry, 0, b"b", None);
        assert!(!registry.is_empty());
        drop(set);
        assert!(registry.is_empty());
        assert!(registry.watched.lock().is_empty());
    }

    #[test]
    fn clearing_forgets_the_mark() {
        let registry = Arc::new(Registry::default());
        let mut set = WatchSet::default();
        set.add(&registry, 0, b"a", Some(7));
        assert!(!set.has_changed(7));
        assert!(set.has_changed(8));
        registry.touch(0, b"a", Touch::Changed);
        set.clear();
        assert!(!set.has_changed(8));
    }
}
