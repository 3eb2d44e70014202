//! Server commands.

pub mod basic;
pub mod command;
mod command_docs;
pub mod config;
pub mod debug;
mod getkeys;
pub mod info;
mod info_text;
pub mod memory;
mod memory_doctor;
pub mod persistence;
pub mod shutdown;
pub mod slowlog;
