//! Which pages a data directory needs that another configuration has written.

use std::path::Path;

use ferrite_io::World;

use super::NamedCheckpoint;
use super::catalog::MANIFEST;
use super::open::read_manifest;
use crate::checkpoint;

/// Bytes of the smallest pages with which a server can start on the checkpoints of this directory: any of their records fits
/// into one. `None`: any pages do, or nothing can be told, which the start itself will say.
pub async fn page_size_needed<W: World>(world: &W, dir: &Path) -> Option<u64> {
    let manifest = read_manifest(world.disk(), &dir.join(MANIFEST)).await.ok()?;
    let mut needed = None;
    for entry in manifest.checkpoints {
        let named = NamedCheckpoint { path: dir.join(entry.name().to_string()), entry };
        // One that is damaged is passed over by the start as well.
        needed = needed.max(checkpoint::longest_record(world.disk(), &named).await);
    }
    needed
}
