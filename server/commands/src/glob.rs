//! Redis's glob: `*`, `?`, `[a-z]`, `[^…]`, `\x`. Bytes, not characters.

/// Does `text` match `pattern`? `fold` ignores the case of ASCII letters.
///
/// As in Redis the empty text (a key may be empty) is matched by `*` but not by `**`.
pub fn matches(pattern: &[u8], text: &[u8], fold: bool) -> bool {
    if text.is_empty() {
        return pattern.is_empty() || pattern == b"*";
    }
    // The last star and the text it has taken so far; only that one is ever tried again, so a pattern of many stars stays
    // within pattern × text steps.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            p += 1;
            if p == pattern.len() {
                return true;
            }
            retry = Some((p, t));
            continue;
        }
        let step = if t < text.len() { one(&pattern[p..], text[t], fold) } else { None };
        if let Some(width) = step {
            p += width;
            t += 1;
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        match retry {
            Some((star, from)) if from < text.len() => {
                retry = Some((star, from + 1));
                p = star;
                t = from + 1;
            }
            _ => return false,
        }
    }
}

/// The width of the pattern's first element if it matches `byte`.
fn one(pattern: &[u8], byte: u8, fold: bool) -> Option<usize> {
    let same = |a: u8, b: u8| if fold { a.eq_ignore_ascii_case(&b) } else { a == b };
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' if pattern.len() >= 2 => same(pattern[1], byte).then_some(2),
        b'[' => {
            let (found, width) = class(pattern, byte, fold);
            found.then_some(width)
        }
        literal => same(literal, byte).then_some(1),
    }
}

/// `pattern` begins with `[`. An unclosed class ends with the pattern, as in Redis.
fn class(pattern: &[u8], byte: u8, fold: bool) -> (bool, usize) {
    let lower = |b: u8| if fold { b.to_ascii_lowercase() } else { b };
    let mut i = 1;
    let negated = pattern.get(1) == Some(&b'^');
    if negated {
        i += 1;
    }
    let mut found = false;
    let width = loop {
        match pattern[i.min(pattern.len())..] {
            [] => break pattern.len(),
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                i += 2;
            }
            [b']', ..] => break i + 1,
            [from, b'-', to, ..] => {
                let (low, high) = if from <= to { (from, to) } else { (to, from) };
                found |= (lower(low)..=lower(high)).contains(&lower(byte));
                i += 3;
            }
            [literal, ..] => {
                found |= lower(literal) == lower(byte);
                i += 1;
            }
        }
    };
    (found != negated, width)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn agrees_with_the_documented_patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("**", "", false),
            ("h?llo", "hallo", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hello", false),
            (r"[\]]", "]", true),
            ("[abc", "c", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
            ("", "", true),
            ("", "a", false),
            ("a**", "a", true),
            ("\\", "\\", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes(), false), expected, "{pattern} {text}");
        }
        assert!(matches(b"MAX*", b"maxmemory", true));
        assert!(!matches(b"MAX*", b"maxmemory", false));
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = b"*a".repeat(200);
        let text = vec![b'b'; 100_000];
        assert!(!matches(&pattern, &text, false));
    }
}
