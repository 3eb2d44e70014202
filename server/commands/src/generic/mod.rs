//! Commands on keys of any type, and on whole databases.

pub mod database;
pub mod delete;
pub mod expire;
pub mod object;
pub mod rename;
pub mod scan;
pub mod ttl;

pub(crate) use rename::foreign_key;
