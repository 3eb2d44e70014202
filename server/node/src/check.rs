//! Verifying a data directory while no server uses it.

use std::path::Path;

use ferrite_hybridlog::datadir::{OpenError, Report, check_data_dir};
use ferrite_io::World;

use crate::start::LOG_FILE;

/// Reads every file of the data directory and changes none.
///
/// # Errors
/// If the directory cannot be looked at: it is not there, or a server uses it.
pub async fn check<W: World>(world: W, dir: &Path) -> Result<Report, OpenError> {
    check_data_dir(&world, dir, LOG_FILE).await
}
