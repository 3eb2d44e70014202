//! Connection commands.

pub mod basic;
pub mod client;
mod client_list;
pub mod hello;
