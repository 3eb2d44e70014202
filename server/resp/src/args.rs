//! A command as ranges into the buffer it was received in.

use std::ops::Range;

/// Where an argument lies: an index range of the input, or with [`SIDE`] set in both ends, of the side buffer.
pub type ArgRange = Range<usize>;

/// Marks a range of [`Parsed`]'s side buffer. No input reaches this length, so the bit is free.
const SIDE: usize = 1 << (usize::BITS - 1);

/// One complete command. Reused between commands, so that a warm connection allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The command's words. Empty for a blank inline line and for `*0`.
    pub args: Vec<ArgRange>,
    /// Key and value of each RESP attribute (`|n`) before the command.
    pub attributes: Vec<(ArgRange, ArgRange)>,
    /// Bytes of the input that the command took.
    pub consumed: usize,
    /// Inline arguments after unescaping.
    side: Vec<u8>,
}

impl Parsed {
    /// The arguments; `input` starts where the command started.
    pub fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        Args { input, side: &self.side, ranges: &self.args }
    }

    /// Key and value of each attribute; `input` starts where the command started.
    pub fn attributes<'a>(&'a self, input: &'a [u8]) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> {
        self.attributes.iter().map(|(key, value)| (&input[key.clone()], &input[value.clone()]))
    }

    /// Forgets the command and keeps the allocations.
    pub fn clear(&mut self) {
        self.args.clear();
        self.attributes.clear();
        self.side.clear();
        self.consumed = 0;
    }

    /// Begins an argument that is built byte by byte.
    pub(crate) fn begin_side(&self) -> usize {
        self.side.len()
    }

    pub(crate) fn push_side_byte(&mut self, byte: u8) {
        self.side.push(byte);
    }

    pub(crate) fn extend_side(&mut self, bytes: &[u8]) {
        self.side.extend_from_slice(bytes);
    }

    /// Ends the argument that [`Parsed::begin_side`] began at `start`.
    pub(crate) fn end_side(&mut self, start: usize) {
        self.args.push(start | SIDE..self.side.len() | SIDE);
    }
}

/// The arguments of one command, the name first. A view: copying it copies two slices.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    input: &'a [u8],
    side: &'a [u8],
    ranges: &'a [ArgRange],
}

impl<'a> Args<'a> {
    /// Arguments that all lie in `input`. For a command that came from a [`crate::Parser`] use [`Parsed::args`],
    /// which also knows the unescaped ones.
    pub fn new(input: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Self { input, side: &[], ranges }
    }

    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The `index`-th argument.
    ///
    /// # Panics
    /// If there is none: arity is checked before a command runs.
    #[inline]
    pub fn get(&self, index: usize) -> &'a [u8] {
        let range = &self.ranges[index];
        if range.start & SIDE == 0 {
            &self.input[range.clone()]
        } else {
            &self.side[range.start & !SIDE..range.end & !SIDE]
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + use<'a> {
        let args = *self;
        (0..args.len()).map(move |index| args.get(index))
    }

    /// The arguments from the `first`-th on.
    ///
    /// # Panics
    /// If there are fewer than `first`.
    pub fn from(&self, first: usize) -> Self {
        Self { ranges: &self.ranges[first..], ..*self }
    }
}
