//! The command table and the command families.
//!
//! A command comes in as [`ferrite_resp::Args`]; the driver looks into the wrapper ([`otel::unwrap`]), admits it
//! ([`admit::admit`]) and executes it ([`call::execute`]). What a command cannot do at once it leaves to the node as
//! [`Deferred`]. One table ([`table`]) drives lookup, arity, key positions, categories and what COMMAND shows.

pub mod admit;
pub mod call;
mod connection;
mod echo;
mod generic;
pub mod glob;
mod hashes;
mod help;
pub mod host;
mod long_double;
pub mod otel;
mod parse;
mod scan_options;
pub mod server;
pub mod session;
pub mod spec;
mod strings;
pub mod table;
#[cfg(test)]
mod testing;
mod transactions;

pub use admit::{Admission, admit};
pub use call::{Call, Env, drain_expired, execute, keys_of};
pub use echo::Echo;
pub use host::{
    AofRewrite, BackgroundSave, ClientInfo, ConfigSetError, Deferred, Host, Searched, Shutdown, TracesQuery,
    TracesWanted,
};
pub use server::info::InfoSnapshot;
pub use server::slowlog::Slowlog;
pub use server::{config, info, shutdown};
pub use session::Session;
pub use spec::{CommandSpec, flag};
pub use table::lookup;

/// The Redis version whose behaviour is kept, as HELLO and INFO tell it.
pub const REDIS_VERSION: &str = "7.2.6";
