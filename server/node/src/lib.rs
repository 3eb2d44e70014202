//! Workers, sessions, admin HTTP and persistence wiring, generic over World.
//!
//! [`Node`] is what all workers share; [`run_worker`] is one worker's life, from the data directory to the drain. A
//! connection is a session on one worker: it parses a batch of commands, runs them and writes their replies.

mod admin;
mod admin_connections;
mod attempts;
mod batch;
mod check;
mod checkpoint;
mod clients;
mod command_log;
mod compact;
pub mod config;
mod context;
mod deferred;
mod evict;
mod expire;
mod exposition;
mod failure;
mod figures;
mod flush;
mod held_reads;
mod host;
mod info;
mod listing;
mod live;
mod memory;
mod metrics;
mod node;
mod page;
mod page_size;
mod parameters;
mod prefetch;
mod replay;
mod rewrite;
mod rewrite_status;
mod save_status;
mod session;
mod signal;
mod space;
mod start;
mod stats;
mod traces;
mod unseen;
mod work;
mod worker;

pub use check::check;
pub use metrics::collect;
pub use node::{Node, ProcessFigures, RenderConfig, Setup};
pub use page_size::adopt_page_size;
pub use start::{Start, StartError, run_worker, serve_admin};

use ferrite_io::{Clock, World};

/// After a failed accept (no more file descriptors, say) the next one would fail at once too.
async fn pause_after_failed_accept<W: World>(world: &W) {
    world.clock().sleep(std::time::Duration::from_millis(100)).await;
}
