//! The registry of all commands and the lookup by name.

use std::sync::OnceLock;

use ferrite_resp::Args;

use crate::spec::CommandSpec;

/// One list of rows a file of commands.
static FAMILIES: &[&[CommandSpec]] = &[
    crate::strings::get::SPECS,
    crate::strings::set::SPECS,
    crate::strings::many::SPECS,
    crate::strings::counter::SPECS,
    crate::strings::range::SPECS,
    crate::strings::lcs::SPECS,
    crate::hashes::field::SPECS,
    crate::hashes::whole::SPECS,
    crate::hashes::counter::SPECS,
    crate::hashes::random::SPECS,
    crate::hashes::scan::SPECS,
    crate::generic::delete::SPECS,
    crate::generic::expire::SPECS,
    crate::generic::ttl::SPECS,
    crate::generic::rename::SPECS,
    crate::generic::scan::SPECS,
    crate::generic::object::SPECS,
    crate::generic::database::SPECS,
    crate::transactions::SPECS,
    crate::connection::basic::SPECS,
    crate::connection::hello::SPECS,
    crate::connection::client::SPECS,
    crate::otel::SPECS,
    crate::server::basic::SPECS,
    crate::server::command::SPECS,
    crate::server::config::SPECS,
    crate::server::debug::SPECS,
    crate::server::info::SPECS,
    crate::server::memory::SPECS,
    crate::server::persistence::SPECS,
    crate::server::shutdown::SPECS,
    crate::server::slowlog::SPECS,
];

/// Slots of the hash table: a power of two, several times the number of commands, so that a probe seldom goes on.
const SLOTS: usize = 1024;

#[derive(Clone, Copy)]
struct Slot {
    name: Folded,
    spec: Option<&'static CommandSpec>,
}

/// A name in lower case as two overlapping words and its length. Of names up to 16 bytes nothing is left out, so that
/// equal words are equal names.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Folded {
    low: u64,
    high: u64,
    len: usize,
}

const FOLDED_WHOLE_MAX: usize = 16;

/// The rows as they are used: numbered, with the names that traces and metrics show. Made once, never freed.
struct Registry {
    specs: &'static [CommandSpec],
    /// Subcommands included.
    by_index: Vec<&'static CommandSpec>,
    slots: [Slot; SLOTS],
}

/// All commands, without subcommands, in the order of the families.
pub fn all() -> impl Iterator<Item = &'static CommandSpec> {
    registry().specs.iter()
}

/// Number of commands, without subcommands.
pub fn count() -> usize {
    registry().specs.len()
}

/// Number of commands and subcommands: one more than the greatest [`CommandSpec::index`].
pub fn index_count() -> usize {
    registry().by_index.len()
}

/// The command or subcommand with this index.
///
/// # Panics
/// If there is none.
pub fn by_index(index: usize) -> &'static CommandSpec {
    registry().by_index[index]
}

/// [`CommandSpec::trace_name`] of the command or subcommand with this index.
///
/// # Panics
/// If there is none.
pub fn trace_name(index: usize) -> &'static str {
    by_index(index).trace_name()
}

/// The command of this name, in any case. A container's subcommands are found by [`resolve`].
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static CommandSpec> {
    let slots = &registry().slots;
    let folded = fold(name);
    let mut at = folded.hash();
    loop {
        let slot = &slots[at % SLOTS];
        let spec = slot.spec?;
        if slot.name == folded && (name.len() <= FOLDED_WHOLE_MAX || spec.name.as_bytes().eq_ignore_ascii_case(name)) {
            return Some(spec);
        }
        at += 1;
    }
}

/// The command or subcommand that these arguments mean.
pub fn resolve(args: Args<'_>) -> Option<&'static CommandSpec> {
    if args.is_empty() {
        return None;
    }
    let spec = lookup(args.get(0))?;
    if spec.subcommands.is_empty() || args.len() == 1 { Some(spec) } else { subcommand(spec, args.get(1)) }
}

/// The subcommand of this name, in any case.
pub fn subcommand(container: &'static CommandSpec, name: &[u8]) -> Option<&'static CommandSpec> {
    container.subcommands.iter().find(|spec| spec.short_name().as_bytes().eq_ignore_ascii_case(name))
}

/// The command or subcommand written as COMMAND INFO takes it: `get`, `client|list`.
pub fn lookup_full(name: &[u8]) -> Option<&'static CommandSpec> {
    match name.iter().position(|&byte| byte == b'|') {
        None => lookup(name),
        Some(bar) => subcommand(lookup(&name[..bar])?, &name[bar + 1..]),
    }
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Box<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let specs = register(FAMILIES.iter().flat_map(|family| family.iter()), &mut 0);
        let by_index = specs.iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)).collect();
        assert!(specs.len() * 2 <= SLOTS, "the table of commands is too full to end a probe soon");
        let mut slots = [Slot { name: fold(b""), spec: None }; SLOTS];
        for spec in specs {
            let name = fold(spec.name.as_bytes());
            let mut at = name.hash() % SLOTS;
            while slots[at].spec.is_some() {
                at = (at + 1) % SLOTS;
            }
            slots[at] = Slot { name, spec: Some(spec) };
        }
        Box::new(Registry { specs, by_index, slots })
    })
}

/// Copies of the rows, each numbered before its subcommands and they before the next row.
fn register<'r>(rows: impl Iterator<Item = &'r CommandSpec>, next: &mut u16) -> &'static [CommandSpec] {
    let mut specs = Vec::new();
    for row in rows {
        let index = *next;
        *next += 1;
        let trace_name = row.name.to_ascii_uppercase().replace('|', " ").leak();
        let words = if row.name.contains('|') { 2 } else { 1 };
        let subcommands = register(row.subcommands.iter(), next);
        specs.push(CommandSpec { index, trace_name, words, subcommands, ..*row });
    }
    specs.leak()
}

impl Folded {
    #[inline]
    fn hash(&self) -> usize {
        const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
        let mixed = (self.low ^ self.high.rotate_left(29) ^ self.len as u64).wrapping_mul(MIX);
        (mixed >> 40) as usize
    }
}

#[inline]
fn fold(name: &[u8]) -> Folded {
    let (low, high) = match name {
        [.., _, _, _, _, _, _, _, _] => (
            u64::from_le_bytes(*name.first_chunk().expect("eight bytes")),
            u64::from_le_bytes(*name.last_chunk().expect("eight bytes")),
        ),
        [.., _, _, _, _] => (
            u64::from(u32::from_le_bytes(*name.first_chunk().expect("four bytes"))),
            u64::from(u32::from_le_bytes(*name.last_chunk().expect("four bytes"))),
        ),
        [first, middle, last] => (u64::from(*first), u64::from(*middle) << 8 | u64::from(*last)),
        [first, last] => (u64::from(*first), u64::from(*last)),
        [single] => (u64::from(*single), 0),
        [] => (0, 0),
    };
    Folded { low: lower(low), high: lower(high), len: name.len() }
}

/// Lower case of eight ASCII bytes at once; other bytes stay. The top bit of each byte says whether the byte is at least
/// `A`, then whether it is beyond `Z`.
#[inline]
fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let seven = word & (0x7f * EACH);
    let from_a = seven + (0x80 - b'A' as u64) * EACH;
    let beyond_z = seven + (0x7f - b'Z' as u64) * EACH;
    let upper = (from_a ^ beyond_z) & !word & (0x80 * EACH);
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::flag;

    #[test]
    fn every_command_is_found_in_either_case_and_only_once() {
        for spec in all() {
            assert!(std::ptr::eq(lookup(spec.name.as_bytes()).expect("listed"), spec), "{} twice", spec.name);
            let upper = spec.name.to_ascii_uppercase();
            assert!(std::ptr::eq(lookup(upper.as_bytes()).expect("listed"), spec));
            for sub in spec.subcommands {
                let found = lookup_full(sub.name.to_ascii_uppercase().as_bytes()).expect("listed");
                assert!(std::ptr::eq(found, sub), "{} twice", sub.name);
            }
        }
        assert_eq!(all().count(), count());
    }

    #[test]
    fn commands_and_subcommands_are_numbered_without_gaps() {
        let every: Vec<_> = all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)).collect();
        assert_eq!(every.len(), index_count());
        for (index, spec) in every.iter().enumerate() {
            assert_eq!(spec.index(), index);
            assert!(std::ptr::eq(by_index(index), *spec));
        }
        let set = lookup_full(b"config|set").expect("listed");
        assert_eq!((trace_name(set.index()), set.words()), ("CONFIG SET", 2));
    }

    #[test]
    fn what_is_no_command_is_not_found() {
        for name in [&b""[..], b"g", b"ge", b"nope", b"getgetgetgetgetgetget", b"PIN\x07", b"\x10", b"client|list"] {
            assert!(lookup(name).is_none(), "{name:?}");
        }
        assert!(lookup(b"PING\0").is_none());
    }

    #[test]
    fn words_are_lowered_byte_by_byte() {
        for byte in 0..=u8::MAX {
            let mut bytes = [byte; 8];
            bytes[3] = b'Q';
            let expected = bytes.map(|byte| byte.to_ascii_lowercase());
            assert_eq!(lower(u64::from_le_bytes(bytes)).to_le_bytes(), expected);
        }
    }

    /// What COMMAND and COMMAND DOCS show must be complete and consistent for every row.
    #[test]
    fn every_row_is_complete() {
        fn check(spec: &CommandSpec, parent: Option<&CommandSpec>) {
            let name = spec.name;
            assert_eq!(name, name.to_ascii_lowercase());
            assert!(spec.arity != 0, "{name}");
            assert!(!spec.summary.is_empty(), "{name} has no summary");
            assert!(spec.summary.ends_with('.'), "{name}'s summary is no sentence");
            assert_eq!(spec.since.split('.').count(), 3, "{name}");
            assert!(!(spec.has(flag::WRITE) && spec.has(flag::READONLY)), "{name}");
            if let Some(parent) = parent {
                assert_eq!(name.split_once('|').map(|(container, _)| container), Some(parent.name));
            }
            let keys = spec.key_specs.len();
            check_args(name, spec.arguments, keys);
            for sub in spec.subcommands {
                check(sub, Some(spec));
            }
        }
        fn check_args(name: &str, args: &[crate::spec::Arg], keys: usize) {
            use crate::spec::ArgKind;
            for arg in args {
                if let ArgKind::Key(index) = arg.kind {
                    assert!(index < keys, "{name}: {} has no key specification", arg.name);
                }
                let nested = matches!(arg.kind, ArgKind::OneOf | ArgKind::Block);
                assert_eq!(nested, !arg.args.is_empty(), "{name}: {}", arg.name);
                assert!(arg.kind != ArgKind::PureToken || arg.token.is_some(), "{name}: {}", arg.name);
                check_args(name, arg.args, keys);
            }
        }
        for spec in all() {
            check(spec, None);
        }
    }
}
