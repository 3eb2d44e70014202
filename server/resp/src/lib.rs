//! RESP2 and RESP3: zero-copy parse, reply writer.
//!
//! The parser never copies an argument: a command is a list of ranges into the connection's input buffer
//! ([`Parsed`]), read through [`Args`]. Only inline arguments with quotes are unescaped into a side buffer.
//! Nothing here does I/O, and no input makes it panic.

mod args;
mod double;
mod error;
mod inline;
mod number;
mod parser;
mod reply;

pub use args::{ArgRange, Args, Parsed};
pub use double::write_double;
pub use error::ProtocolError;
pub use number::parse_i64;
pub use parser::{Limits, MAX_ATTRIBUTE_LEN, MAX_ATTRIBUTES, Parser};
pub use reply::Reply;

/// Version of the protocol a connection speaks; HELLO changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}
