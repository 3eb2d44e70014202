//! Attributes as bytes: what an event, and the root of work that is no command, carry beside their fixed part.
//!
//! One after the other: key (1 byte), type (1 byte), then the value: an integer in 8 bytes, a truth in 1 byte, a text
//! behind its length in 2 bytes; little-endian.
//!
//! Members of a caller's baggage, whose keys are no attributes of ours: key and value, each behind its length in 2 bytes.

use std::borrow::Cow;

use crate::schema::Attribute;
use crate::sink::ValueRef;
use crate::span::Value;

const INT: u8 = 0;
const BOOL: u8 = 1;
const STR: u8 = 2;

/// Bytes of one text that are kept.
const TEXT_BYTES_MAX: usize = 4096;
/// The end of one that was longer.
const CUT: &str = "…";

/// Appends the attributes, as far as they fit into `bytes_max`.
pub(crate) fn put(attributes: &[(Attribute, Value)], bytes_max: usize, out: &mut Vec<u8>) {
    let start = out.len();
    for (key, value) in attributes {
        let before = out.len();
        out.push(*key as u8);
        match value {
            Value::Int(number) => {
                out.push(INT);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Value::Bool(truth) => out.extend_from_slice(&[BOOL, u8::from(*truth)]),
            Value::Str(text) => {
                let (kept, end) = match text.len() > TEXT_BYTES_MAX {
                    true => (&text[..text.floor_char_boundary(TEXT_BYTES_MAX - CUT.len())], CUT),
                    false => (&**text, ""),
                };
                out.push(STR);
                out.extend_from_slice(&((kept.len() + end.len()) as u16).to_le_bytes());
                out.extend_from_slice(kept.as_bytes());
                out.extend_from_slice(end.as_bytes());
            }
        }
        if out.len() - start > bytes_max {
            out.truncate(before);
            return;
        }
    }
}

/// The inverse of [`put`]: gives each attribute to `found`. What [`put`] cannot have written ends the list.
pub(crate) fn each(mut bytes: &[u8], mut found: impl FnMut(Attribute, ValueRef<'_>)) {
    while let Some(rest) = read_one(bytes, &mut found) {
        bytes = rest;
    }
}

/// Gives what is behind the attribute.
fn read_one<'b>(bytes: &'b [u8], found: &mut impl FnMut(Attribute, ValueRef<'_>)) -> Option<&'b [u8]> {
    let (&[key, kind], rest) = bytes.split_first_chunk()?;
    let key = Attribute::from_u8(key)?;
    match kind {
        INT => {
            let (number, rest) = rest.split_first_chunk()?;
            found(key, ValueRef::Int(i64::from_le_bytes(*number)));
            Some(rest)
        }
        BOOL => {
            let (truth, rest) = rest.split_first()?;
            found(key, ValueRef::Bool(*truth != 0));
            Some(rest)
        }
        STR => {
            let (len, rest) = rest.split_first_chunk()?;
            let (text, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
            found(key, ValueRef::Str(&String::from_utf8_lossy(text)));
            Some(rest)
        }
        _ => None,
    }
}

/// Bytes of all members that are kept: the list's length has 16 bits.
const BAGGAGE_BYTES_MAX: usize = 16 * 1024;

/// Appends members; one that does not fit ends the list.
pub(crate) fn put_baggage<'b>(members: impl Iterator<Item = (&'b str, Cow<'b, str>)>, out: &mut Vec<u8>) {
    let start = out.len();
    for (key, value) in members {
        if out.len() - start + key.len() + value.len() + 4 > BAGGAGE_BYTES_MAX {
            return;
        }
        for text in [key, &value] {
            out.extend_from_slice(&(text.len() as u16).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// One member's value.
pub(crate) fn baggage_value<'b>(bytes: &'b [u8], key: &str) -> Option<&'b [u8]> {
    members(bytes).find_map(|(known, value)| (known == key.as_bytes()).then_some(value))
}

/// The inverse of [`put_baggage`]: keys and values.
pub(crate) fn members(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut text = move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
        bytes = rest;
        Some(text)
    };
    std::iter::from_fn(move || Some((text()?, text()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Vec<(Attribute, Value)> {
        let mut attributes = Vec::new();
        each(bytes, |key, value| attributes.push((key, value.to_value())));
        attributes
    }

    fn read_baggage(bytes: &[u8]) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        members(bytes).map(|(key, value)| (text(key), text(value))).collect()
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(Value::Int),
            any::<bool>().prop_map(Value::Bool),
            ".{0,40}".prop_map(|text| Value::Str(text.into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(values in proptest::collection::vec((0..Attribute::ALL.len(), value()), 0..9)) {
            let attributes: Vec<_> = values.into_iter().map(|(key, value)| (Attribute::ALL[key], value)).collect();
            let mut bytes = Vec::new();
            put(&attributes, usize::MAX, &mut bytes);
            prop_assert_eq!(read(&bytes), attributes);
        }

        #[test]
        fn baggage_that_is_put_is_read(members in proptest::collection::vec((".{1,9}", ".{0,40}"), 0..9)) {
            let mut bytes = Vec::new();
            put_baggage(members.iter().map(|(key, value)| (key.as_str(), value.as_str().into())), &mut bytes);
            prop_assert_eq!(read_baggage(&bytes), members);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(read(&bytes).len() <= bytes.len() / 3);
            prop_assert!(read_baggage(&bytes).len() <= bytes.len() / 4);
        }
    }

    #[test]
    fn texts_are_cut_between_characters_and_lists_between_attributes() {
        let long = (Attribute::ExceptionMessage, Value::Str("ü".repeat(3000).into()));
        let short = (Attribute::ConnectionId, Value::Int(7));
        let mut bytes = Vec::new();
        put(&[long.clone(), short.clone()], usize::MAX, &mut bytes);
        let cut = (Attribute::ExceptionMessage, Value::Str(("ü".repeat(2046) + "…").into()));
        assert_eq!(read(&bytes), [cut, short.clone()]);
        let full = (Attribute::ExceptionMessage, Value::Str("ü".repeat(2048).into()));
        bytes.clear();
        put(std::slice::from_ref(&full), usize::MAX, &mut bytes);
        assert_eq!(read(&bytes), [full], "what is as long as it may be is whole");
        bytes.clear();
        put(&[short.clone(), long], 100, &mut bytes);
        assert_eq!(read(&bytes), [short]);
    }
}
