//! The type of a command's row: everything that parsing, admission, COMMAND and COMMAND DOCS read.
//!
//! A row lies beside the command's code as part of a `static SPECS: &[CommandSpec]`, built by const functions:
//!
//! ```text
//! CommandSpec::new("get", 2, get)
//!     .group(Group::String).since("1.0.0").complexity("O(1)")
//!     .flags(flag::READONLY | flag::FAST).acl(acl::STRING)
//!     .keys(&[KeySpec::at(1, keyflag::RO | keyflag::ACCESS)])
//!     .summary("Gives the string held by a key.")
//!     .args(&[Arg::key("key", 0)])
//! ```

mod bits;

use ferrite_keyspace::Pause;
use ferrite_resp::Args;

use crate::call::Call;
pub use crate::call::Handler;
pub use bits::{acl, flag, keyflag};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    Generic,
    String,
    List,
    Set,
    SortedSet,
    Hash,
    Pubsub,
    Transactions,
    Connection,
    Server,
    Scripting,
    Hyperloglog,
    Cluster,
    Geo,
    Stream,
    Bitmap,
    /// Ferrite's own OTEL commands; Redis's documentation knows `module` for what is not its own.
    Module,
}

impl Group {
    pub fn as_str(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Hash => "hash",
            Group::Pubsub => "pubsub",
            Group::Transactions => "transactions",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Scripting => "scripting",
            Group::Hyperloglog => "hyperloglog",
            Group::Cluster => "cluster",
            Group::Geo => "geo",
            Group::Stream => "stream",
            Group::Bitmap => "bitmap",
            Group::Module => "module",
        }
    }
}

/// Where the search for keys begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeginSearch {
    Index(usize),
    /// At the argument after `keyword`; a negative `start_from` searches backwards from the end.
    Keyword {
        keyword: &'static str,
        start_from: i32,
    },
    Unknown,
}

/// Which arguments from there are keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FindKeys {
    /// `last` is relative to the first key, or, if negative, to the last argument; `limit` n > 1 means the nth part of
    /// the rest, when `last` is -1.
    Range {
        last: i32,
        step: usize,
        limit: usize,
    },
    /// `count_at` and `first` are relative to the beginning.
    KeyNum {
        count_at: usize,
        first: usize,
        step: usize,
    },
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeySpec {
    pub begin: BeginSearch,
    pub find: FindKeys,
    pub flags: u32,
    pub notes: Option<&'static str>,
}

impl KeySpec {
    /// One key, at this position (the command's name is at 0).
    pub const fn at(index: usize, flags: u32) -> Self {
        Self::range(index, 0, 1, flags)
    }

    /// Every argument from this position on is a key.
    pub const fn all_from(index: usize, flags: u32) -> Self {
        Self::range(index, -1, 1, flags)
    }

    /// `last` counts from the first key, or from the end if negative.
    pub const fn range(index: usize, last: i32, step: usize, flags: u32) -> Self {
        KeySpec { begin: BeginSearch::Index(index), find: FindKeys::Range { last, step, limit: 0 }, flags, notes: None }
    }

    /// A number of keys stands at this position, the keys follow it.
    pub const fn counted(index: usize, flags: u32) -> Self {
        KeySpec {
            begin: BeginSearch::Index(index),
            find: FindKeys::KeyNum { count_at: 0, first: 1, step: 1 },
            flags,
            notes: None,
        }
    }

    pub const fn notes(mut self, notes: &'static str) -> Self {
        self.notes = Some(notes);
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArgKind {
    String,
    Integer,
    Double,
    Key(usize),
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

/// One argument as COMMAND DOCS tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arg {
    pub name: &'static str,
    pub kind: ArgKind,
    pub token: Option<&'static str>,
    pub since: Option<&'static str>,
    pub deprecated_since: Option<&'static str>,
    pub optional: bool,
    pub multiple: bool,
    pub multiple_token: bool,
    pub args: &'static [Arg],
}

impl Arg {
    pub const fn new(name: &'static str, kind: ArgKind) -> Self {
        Arg {
            name,
            kind,
            token: None,
            since: None,
            deprecated_since: None,
            optional: false,
            multiple: false,
            multiple_token: false,
            args: &[],
        }
    }

    pub const fn string(name: &'static str) -> Self {
        Self::new(name, ArgKind::String)
    }

    pub const fn integer(name: &'static str) -> Self {
        Self::new(name, ArgKind::Integer)
    }

    pub const fn double(name: &'static str) -> Self {
        Self::new(name, ArgKind::Double)
    }

    pub const fn pattern(name: &'static str) -> Self {
        Self::new(name, ArgKind::Pattern)
    }

    pub const fn unix_time(name: &'static str) -> Self {
        Self::new(name, ArgKind::UnixTime)
    }

    /// A key; `spec` is the index of its key specification.
    pub const fn key(name: &'static str, spec: usize) -> Self {
        Self::new(name, ArgKind::Key(spec))
    }

    /// A word that stands for itself.
    pub const fn word(name: &'static str, token: &'static str) -> Self {
        Self::new(name, ArgKind::PureToken).token(token)
    }

    pub const fn one_of(name: &'static str, args: &'static [Arg]) -> Self {
        let mut arg = Self::new(name, ArgKind::OneOf);
        arg.args = args;
        arg
    }

    pub const fn block(name: &'static str, args: &'static [Arg]) -> Self {
        let mut arg = Self::new(name, ArgKind::Block);
        arg.args = args;
        arg
    }

    pub const fn token(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }

    pub const fn since(mut self, since: &'static str) -> Self {
        self.since = Some(since);
        self
    }

    pub const fn deprecated(mut self, since: &'static str) -> Self {
        self.deprecated_since = Some(since);
        self
    }

    pub const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    pub const fn multiple(mut self) -> Self {
        self.multiple = true;
        self
    }

    pub const fn multiple_token(mut self) -> Self {
        self.multiple_token = true;
        self
    }
}

/// First key, last key (negative: from the end), step; all 0 without keys. As COMMAND INFO shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeyRange {
    pub first: i32,
    pub last: i32,
    pub step: i32,
}

#[derive(Clone, Copy)]
pub struct CommandSpec {
    /// Lower case; a subcommand's is `client|list`.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least that many.
    pub arity: i32,
    pub handler: Handler,
    pub flags: u32,
    /// With what the flags imply.
    pub categories: u32,
    pub group: Group,
    pub since: &'static str,
    pub complexity: Option<&'static str>,
    pub summary: &'static str,
    pub deprecated_since: Option<&'static str>,
    pub replaced_by: Option<&'static str>,
    /// Meant for the system, not for users (`syscmd` in COMMAND DOCS).
    pub system: bool,
    pub tips: &'static [&'static str],
    pub key_specs: &'static [KeySpec],
    /// What the key specifications come to for the commands that have one run of keys.
    pub keys: KeyRange,
    pub arguments: &'static [Arg],
    pub subcommands: &'static [CommandSpec],
    /// Upper bound of the bytes the command may add beyond the values it replaces.
    pub growth: fn(&Args<'_>) -> usize,
    /// With these arguments it writes its keys whatever they held: it need not be read.
    pub overwrites: fn(&Args<'_>) -> bool,
    /// It says itself what of a large value on disk it needs: that is not read with its record.
    pub reads_parts: bool,
    /// For COMMAND GETKEYSANDFLAGS, where a specification says `variable_flags`: what these arguments make of it.
    pub key_flags: Option<fn(&Args<'_>) -> u32>,
    /// Given by the table; a row has none yet.
    pub(crate) index: u16,
    pub(crate) trace_name: &'static str,
    pub(crate) words: u8,
}

fn never(_: &Args<'_>) -> bool {
    false
}

fn no_growth(_: &Args<'_>) -> usize {
    0
}

/// A container's own code is unreachable: admission resolves the subcommand or answers the error.
fn container(call: &mut Call<'_>) -> Result<(), Pause> {
    call.reply.error("ERR a subcommand is missing");
    Ok(())
}

impl CommandSpec {
    pub const fn new(name: &'static str, arity: i32, handler: Handler) -> Self {
        CommandSpec {
            name,
            arity,
            handler,
            flags: 0,
            categories: acl::SLOW,
            group: Group::Generic,
            since: "1.0.0",
            complexity: None,
            summary: "",
            deprecated_since: None,
            replaced_by: None,
            system: false,
            tips: &[],
            key_specs: &[],
            keys: KeyRange { first: 0, last: 0, step: 0 },
            arguments: &[],
            subcommands: &[],
            growth: no_growth,
            overwrites: never,
            reads_parts: false,
            key_flags: None,
            index: 0,
            trace_name: "",
            words: 1,
        }
    }

    /// A command that only holds subcommands.
    pub const fn container(name: &'static str, subcommands: &'static [CommandSpec]) -> Self {
        Self::new(name, -2, container).subcommands(subcommands)
    }

    /// Also derives the categories that follow from the flags.
    pub const fn flags(mut self, flags: u32) -> Self {
        self.flags |= flags;
        if flags & flag::WRITE != 0 {
            self.categories |= acl::WRITE;
        }
        if flags & flag::READONLY != 0 {
            self.categories |= acl::READ;
        }
        if flags & flag::ADMIN != 0 {
            self.categories |= acl::ADMIN | acl::DANGEROUS;
        }
        if flags & flag::PUBSUB != 0 {
            self.categories |= acl::PUBSUB;
        }
        if flags & flag::BLOCKING != 0 {
            self.categories |= acl::BLOCKING;
        }
        if flags & flag::FAST != 0 {
            self.categories |= acl::FAST;
            self.categories &= !acl::SLOW;
        }
        self
    }

    pub const fn acl(mut self, categories: u32) -> Self {
        self.categories |= categories;
        self
    }

    pub const fn group(mut self, group: Group) -> Self {
        self.group = group;
        self
    }

    pub const fn since(mut self, since: &'static str) -> Self {
        self.since = since;
        self
    }

    pub const fn complexity(mut self, complexity: &'static str) -> Self {
        self.complexity = Some(complexity);
        self
    }

    /// One sentence in our own words.
    pub const fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    pub const fn deprecated(mut self, since: &'static str, replaced_by: &'static str) -> Self {
        self.deprecated_since = Some(since);
        self.replaced_by = Some(replaced_by);
        self
    }

    pub const fn system(mut self) -> Self {
        self.system = true;
        self
    }

    pub const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    pub const fn args(mut self, arguments: &'static [Arg]) -> Self {
        self.arguments = arguments;
        self
    }

    pub const fn growth(mut self, growth: fn(&Args<'_>) -> usize) -> Self {
        self.growth = growth;
        self
    }

    pub const fn overwrites(mut self, overwrites: fn(&Args<'_>) -> bool) -> Self {
        self.overwrites = overwrites;
        self
    }

    pub const fn reads_parts(mut self) -> Self {
        self.reads_parts = true;
        self
    }

    pub const fn key_flags(mut self, key_flags: fn(&Args<'_>) -> u32) -> Self {
        self.key_flags = Some(key_flags);
        self
    }

    pub const fn subcommands(mut self, subcommands: &'static [CommandSpec]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Also derives [`CommandSpec::keys`] and the `movablekeys` flag.
    pub const fn keys(mut self, specs: &'static [KeySpec]) -> Self {
        self.key_specs = specs;
        let (keys, movable) = legacy_range(specs);
        self.keys = keys;
        if movable {
            self.flags |= flag::MOVABLE_KEYS;
        }
        self
    }

    /// The part after `|`, or the whole name.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, short)| short)
    }

    /// Dense number of the command, subcommands included: below [`crate::table::index_count`].
    #[inline]
    pub fn index(&self) -> usize {
        self.index.into()
    }

    /// Arguments that the name takes: 2 for a subcommand.
    #[inline]
    pub fn words(&self) -> usize {
        self.words.into()
    }

    /// The name as a client would write it: `GET`, `CONFIG SET`.
    #[inline]
    pub fn trace_name(&self) -> &'static str {
        self.trace_name
    }

    #[inline]
    pub fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    #[inline]
    pub fn arity_allows(&self, argc: usize) -> bool {
        let argc = argc as i64;
        let arity = i64::from(self.arity);
        if arity >= 0 { argc == arity } else { argc >= -arity }
    }
}

/// The one run of keys that covers the specifications, and whether some keys lie outside of it. Runs that do not join
/// or are found by keyword or number are left out, as in Redis.
const fn legacy_range(specs: &[KeySpec]) -> (KeyRange, bool) {
    let none = KeyRange { first: 0, last: 0, step: 0 };
    let mut range = none;
    let mut movable = false;
    let mut i = 0;
    while i < specs.len() {
        let spec = specs[i];
        i += 1;
        if spec.flags & keyflag::INCOMPLETE != 0 {
            movable = true;
        }
        let (BeginSearch::Index(index), FindKeys::Range { last, step, .. }) = (spec.begin, spec.find) else {
            movable = true;
            continue;
        };
        let first = index as i32;
        let last = if last >= 0 { first + last } else { last };
        let alone = specs.len() == 1;
        if !alone && (step != 1 || (range.step != 0 && range.last != first - 1)) {
            movable = true;
            continue;
        }
        if range.step == 0 {
            range = KeyRange { first, last, step: step as i32 };
        } else {
            range.last = last;
        }
    }
    (range, movable)
}
