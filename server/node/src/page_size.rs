//! The page size of a server whose configuration does not say it, on a directory that another configuration has written.

use ferrite_hybridlog::datadir::page_size_needed;
use ferrite_io::World;

use crate::config::Config;
use crate::node::derived_page_size;

/// Takes the size of the pages that the data directory was written with, if `storage.page_size` is 0 and what would be derived
/// from the regions is too small for its records. Called before the node is made.
pub async fn adopt_page_size<W: World>(world: &W, config: &mut Config) {
    if config.storage.page_size != 0 {
        return;
    }
    let derived = derived_page_size(config) as u64;
    let Some(needed) = page_size_needed(world, &config.storage.dir).await else { return };
    if needed > derived {
        tracing::info!(
            bytes = needed,
            derived,
            "the data directory was written with larger pages than the regions ask for: its page size is taken"
        );
        config.storage.page_size = needed;
    }
}
