//! Starts the export of traces and metrics on the first worker.

use std::sync::Arc;

use ferrite_io_real::RealWorld;
use ferrite_node::Node;

/// The export under way.
pub struct Export;

impl Export {
    /// Waits until what is queued has left, or a bound has passed.
    pub async fn finish(self) {}
}

pub fn spawn(_world: &RealWorld, _node: &Arc<Node>) -> Export {
    Export
}
