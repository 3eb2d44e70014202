//! Exemplars: for a bucket of a histogram one command that fell into it.

use std::sync::Arc;

use crate::pins::Pinned;

/// One measurement with the trace that it comes from, which is kept as long as this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exemplar {
    pub trace: Arc<Pinned>,
    pub value_ns: u64,
    /// When it was measured.
    pub unix_ns: u64,
}

/// An exemplar that a batch gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewExemplar {
    /// The command's index in the table.
    pub command: usize,
    /// The bucket's index.
    pub bucket: usize,
    pub exemplar: Exemplar,
}

/// A command that would be one if its trace is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub root: u16,
    pub command: u16,
    pub bucket: u8,
    pub value_ns: u64,
}
