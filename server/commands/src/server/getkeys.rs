//! Which arguments of a command are keys, by its key specifications.

use ferrite_resp::{Args, parse_i64};

use crate::spec::{BeginSearch, CommandSpec, FindKeys, KeySpec, keyflag};

/// Position and flags of each key. `None`: the arguments do not fit the specifications.
pub(super) fn keys_with_flags(spec: &CommandSpec, args: Args<'_>) -> Option<Vec<(usize, u32)>> {
    let mut keys = Vec::new();
    for key_spec in spec.key_specs {
        if key_spec.flags & keyflag::NOT_KEY != 0 {
            continue;
        }
        let mut flags = key_spec.flags & !(keyflag::INCOMPLETE | keyflag::VARIABLE_FLAGS);
        if key_spec.flags & keyflag::VARIABLE_FLAGS != 0 {
            flags = spec.key_flags.map_or(flags, |key_flags| key_flags(&args));
        }
        let (first, last, step) = run_of(key_spec, args)?;
        for at in (first..=last).step_by(step) {
            if at >= args.len() {
                return None;
            }
            keys.push((at, flags));
        }
    }
    Some(keys)
}

/// First and last position and step; an empty run has its last before its first.
fn run_of(key_spec: &KeySpec, args: Args<'_>) -> Option<(usize, usize, usize)> {
    const NONE: (usize, usize, usize) = (1, 0, 1);
    let begin = match key_spec.begin {
        BeginSearch::Index(index) => index,
        BeginSearch::Keyword { keyword, start_from } => {
            let is_keyword = |&at: &usize| args.get(at).eq_ignore_ascii_case(keyword.as_bytes());
            let found = if start_from >= 0 {
                (start_from as usize..args.len()).find(is_keyword)
            } else {
                (0..args.len().saturating_sub(start_from.unsigned_abs() as usize - 1)).rev().find(is_keyword)
            };
            match found {
                Some(at) => at + 1,
                // The keyword is optional.
                None => return Some(NONE),
            }
        }
        BeginSearch::Unknown => return Some(NONE),
    };
    match key_spec.find {
        FindKeys::Range { last, step, limit } => {
            let last = if last >= 0 {
                begin + last as usize
            } else {
                let end = if limit > 1 { begin + args.len().saturating_sub(begin) / limit } else { args.len() };
                end.checked_sub(last.unsigned_abs() as usize)?
            };
            Some((begin, last, step))
        }
        FindKeys::KeyNum { count_at, first, step } => {
            if begin + count_at >= args.len() {
                return None;
            }
            let count = usize::try_from(parse_i64(args.get(begin + count_at))?).ok()?;
            // More keys than arguments.
            if count > args.len() {
                return None;
            }
            if count == 0 {
                return Some(NONE);
            }
            let first = begin + first;
            Some((first, first + (count - 1) * step, step))
        }
        FindKeys::Unknown => Some(NONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::words;

    fn keys(specs: &'static [KeySpec], command: &str) -> Option<Vec<usize>> {
        fn nothing(_: &mut crate::call::Call<'_>) -> Result<(), ferrite_keyspace::Pause> {
            Ok(())
        }
        let spec = CommandSpec::new("x", -1, nothing).keys(specs);
        words(command, |args| Some(keys_with_flags(&spec, args)?.iter().map(|(at, _)| *at).collect()))
    }

    static ONE: &[KeySpec] = &[KeySpec::at(1, 0)];
    static ALL: &[KeySpec] = &[KeySpec::all_from(1, 0)];
    static PAIRS: &[KeySpec] = &[KeySpec::range(1, -1, 2, 0)];
    static COUNTED: &[KeySpec] = &[KeySpec::counted(2, 0)];
    static STORE: &[KeySpec] = &[KeySpec::at(1, 0), KeySpec::counted(2, 0)];
    static KEYWORD: &[KeySpec] = &[KeySpec {
        begin: BeginSearch::Keyword { keyword: "STREAMS", start_from: 1 },
        find: FindKeys::Range { last: -1, step: 1, limit: 2 },
        flags: 0,
        notes: None,
    }];

    #[test]
    fn ranges() {
        assert_eq!(keys(ONE, "x a b"), Some(vec![1]));
        assert_eq!(keys(ONE, "x"), None);
        assert_eq!(keys(ALL, "x a b c"), Some(vec![1, 2, 3]));
        assert_eq!(keys(PAIRS, "x a 1 b 2"), Some(vec![1, 3]));
    }

    #[test]
    fn counted_runs() {
        assert_eq!(keys(COUNTED, "x script 2 a b c"), Some(vec![3, 4]));
        assert_eq!(keys(COUNTED, "x script 0 a"), Some(vec![]));
        for bad in ["x script 9 a", "x script -1 a", "x script one a", "x script"] {
            assert_eq!(keys(COUNTED, bad), None, "{bad}");
        }
        assert_eq!(keys(STORE, "x to 2 a b"), Some(vec![1, 3, 4]));
    }

    #[test]
    fn after_a_keyword() {
        assert_eq!(keys(KEYWORD, "x COUNT 1 streams a b 0 0"), Some(vec![4, 5]));
        assert_eq!(keys(KEYWORD, "x COUNT 1"), Some(vec![]));
    }
}
