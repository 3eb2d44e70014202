//! Hashes: fields with values under a key.

pub mod counter;
pub mod field;
pub mod random;
pub mod scan;
pub mod whole;

use ferrite_keyspace::Pause;
use ferrite_resp::Args;

use crate::call::Call;

/// Bytes of a length, or of the head of a new hash, at most.
const LENGTH_MAX: usize = 10;

/// What the arguments after the key come to as elements of a hash, or of an effect that names them.
fn growth(args: &Args<'_>) -> usize {
    LENGTH_MAX + args.iter().skip(2).map(|arg| LENGTH_MAX + arg.len()).sum::<usize>()
}

/// The value of the field at position 2, for a writer.
fn old_value<'c>(call: &'c mut Call<'_>) -> Result<Option<&'c [u8]>, Pause> {
    let field = call.args.get(2);
    Ok(call.keys.get_hash(call.args.get(1))?.and_then(|hash| hash.get(field)))
}
