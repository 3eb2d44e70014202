//! Differential tests: the same commands against Ferrite and a real redis-server, replies compared byte by byte.

// These tests start processes and talk to sockets; none of it is product code.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod differences;
pub mod generate;
pub mod process;
pub mod wire;
