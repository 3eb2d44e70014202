//! What becomes of the records at the log's beginning: those of keys are copied to its tail, expired keys are deleted as by the
//! active cycle, and the rest is dropped.

use ferrite_hybridlog::Planted;
use ferrite_hybridlog::compaction::{Old, OldRecord};

use crate::Pause;
use crate::scratch::has_expired;
use crate::view::{Keyspace, Lent};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compacted {
    /// It was copied, and takes so many bytes. A tombstone too, if what it may hide cannot be read.
    Kept(usize),
    Dropped,
    /// It was a key's whose time had come: that is deleted.
    Expired,
}

/// Deals with one record. Without `may_expire` keys whose time has come are copied like others. The worker is not in the
/// exclusive mode and holds no latch.
///
/// # Errors
/// A pause, after which it is called again; [`Pause::Headers`] and [`Pause::Records`] name what to read and hold, the record
/// itself included.
pub fn compact(lent: Lent<'_>, record: &OldRecord, may_expire: bool) -> Result<Compacted, Pause> {
    let Lent { pinned, held, databases, now_ms, .. } = lent;
    let _latch = pinned.latch(record.hash, true);
    match pinned.judge(record, held) {
        Old::Newest => {}
        Old::Superseded => return Ok(Compacted::Dropped),
        Old::Cold(address) => return Err(Pause::Headers(vec![address])),
    }
    let is_deletion = record.is_tombstone() && !Planted::TombstoneIsRevived.is_there();
    let shown = if is_deletion { None } else { databases.db_of(record.space()) };
    if record.is_tombstone() && databases.db_of(record.space()).is_some() && pinned.may_hide(record) {
        let (_, after) = pinned.keep(record).map_err(Pause::Space)?;
        return Ok(Compacted::Kept(after));
    }
    let Some(db) = shown else {
        pinned.let_go(record);
        return Ok(Compacted::Dropped);
    };
    if may_expire && has_expired(record.expire_at_ms(), now_ms) {
        if Planted::ExpiredIsDropped.is_there() {
            pinned.let_go(record);
            return Ok(Compacted::Expired);
        }
        let Some(read) = held.get(record.address) else { return Err(Pause::Records(vec![record.address])) };
        let Some(key) = read.key().map(<[u8]>::to_vec) else { return Err(Pause::Records(vec![record.address])) };
        Keyspace::silent(lent, db).delete_expired(&key)?;
        return Ok(Compacted::Expired);
    }
    let (before, after) = pinned.keep(record).map_err(Pause::Space)?;
    databases.count_bytes(db, before, after);
    Ok(Compacted::Kept(after))
}
