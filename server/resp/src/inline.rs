//! Inline commands: words on a line, with the quoting of Redis's `sdssplitargs`.

use crate::{Parsed, ProtocolError};

/// Splits `line`, which starts at offset `base` of the input, into the words of `into`.
///
/// Between double quotes `\n \r \t \b \a \xHH` are unescaped and any other escaped byte stands for itself;
/// between single quotes only `\'`. A closing quote must end the word.
pub(crate) fn split(line: &[u8], base: usize, into: &mut Parsed) -> Result<(), ProtocolError> {
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|&byte| is_space(byte)) {
            at += 1;
        }
        if at == line.len() {
            return Ok(());
        }
        let start = at;
        while line.get(at).is_some_and(|&byte| !ends_word(byte) && byte != b'"' && byte != b'\'') {
            at += 1;
        }
        match line.get(at) {
            Some(&quote @ (b'"' | b'\'')) => at = quoted_word(line, start, at, quote, into)?,
            _ => into.args.push(base + start..base + at),
        }
    }
}

/// Unescapes a word that starts at `start` and meets its first quote at `at`; returns the offset after it.
fn quoted_word(line: &[u8], start: usize, mut at: usize, quote: u8, into: &mut Parsed) -> Result<usize, ProtocolError> {
    let begun = into.begin_side();
    into.extend_side(&line[start..at]);
    at += 1;
    // A quote may open in the middle of a word, and its end ends the word: there is one quoted part at most.
    loop {
        let rest = &line[at..];
        match (quote, rest) {
            (b'"', [b'\\', b'x', high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                into.push_side_byte(hex_digit(*high) << 4 | hex_digit(*low));
                at += 4;
            }
            (b'"', [b'\\', escaped, ..]) => {
                into.push_side_byte(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                at += 2;
            }
            (b'\'', [b'\\', b'\'', ..]) => {
                into.push_side_byte(b'\'');
                at += 2;
            }
            (_, [byte, after @ ..]) if *byte == quote => {
                if after.first().is_some_and(|&next| !is_space(next)) {
                    return Err(ProtocolError::UnbalancedQuotes);
                }
                into.end_side(begun);
                return Ok(at + 1);
            }
            (_, [byte, ..]) => {
                into.push_side_byte(*byte);
                at += 1;
            }
            (_, []) => return Err(ProtocolError::UnbalancedQuotes),
        }
    }
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// `sdssplitargs` ends an unquoted word at fewer bytes than it skips between words.
fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<Vec<u8>>, ProtocolError> {
        let mut parsed = Parsed::default();
        split(line.as_bytes(), 0, &mut parsed)?;
        Ok(parsed.args(line.as_bytes()).iter().map(<[u8]>::to_vec).collect())
    }

    fn expect(line: &str, expected: &[&[u8]]) {
        assert_eq!(
            words(line).as_deref(),
            Ok(&expected.iter().map(|word| word.to_vec()).collect::<Vec<_>>()[..]),
            "{line:?}"
        );
    }

    #[test]
    fn splits_at_blanks() {
        expect("", &[]);
        expect(" \t ", &[]);
        expect("  SET k  v\t", &[b"SET", b"k", b"v"]);
        expect("a\u{b}b \u{b}c", &[b"a\x0bb", b"c"]);
    }

    #[test]
    fn unescapes_between_double_quotes() {
        expect(r#"SET k "a b""#, &[b"SET", b"k", b"a b"]);
        expect(r#""\n\r\t\b\a\x41\xfF\q\"\\""#, &[b"\n\r\t\x08\x07A\xffq\"\\"]);
        expect(r#""\x4g""#, &[b"x4g"]);
        expect(r#""" x"#, &[b"", b"x"]);
    }

    #[test]
    fn single_quotes_know_only_their_own_escape() {
        expect(r"'a\nb' 'it\'s'", &[br"a\nb", b"it's"]);
    }

    #[test]
    fn a_quote_may_open_within_a_word() {
        expect(r#"foo"bar baz" qux"#, &[b"foobar baz", b"qux"]);
        expect(r"foo'bar' plain", &[b"foobar", b"plain"]);
    }

    #[test]
    fn refuses_unbalanced_quotes() {
        for line in [r#"""#, "'", r#""a"b"#, "'a'b", r#""a\""#, r"'a\'", r#""a"'b'"#, r#"a ""#, r#""\"#] {
            assert_eq!(words(line), Err(ProtocolError::UnbalancedQuotes), "{line:?}");
        }
    }
}
