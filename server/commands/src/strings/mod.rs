//! Strings: bytes under a key.

pub mod counter;
pub mod get;
pub mod lcs;
pub mod many;
mod options;
pub mod range;
pub mod set;

pub(crate) use options::invalid_expire_time;
