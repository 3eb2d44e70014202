//! What a key's value may be, how it is read from any source and how it is written.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::PathBuf;

use ferrite_node::config::{Choice, rates, save_points, texts};
use ferrite_telemetry::{Schedule, TailSettings};
use toml_edit::{Array, InlineTable, Value};

/// A value as a source gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// From a flag or a variable: the key's kind says how to read it.
    Text(String),
    // From the file, which has types of its own.
    String(String),
    Bool(bool),
    Integer(i64),
    Float(f64),
    List(Vec<Given>),
    Pairs(BTreeMap<String, String>),
    /// Something that no key takes, by its TOML name.
    Other(&'static str),
}

impl Given {
    /// The text of a flag, of a variable or of a TOML string.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::String(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::String(text) => write!(f, "{text:?}"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::List(_) => f.write_str("a list"),
            Self::Pairs(_) => f.write_str("a table"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// A kind of value.
pub trait Kind {
    type Of;

    /// Completes `expected …`.
    fn expects() -> String;
    fn read(given: &Given) -> Option<Self::Of>;
    fn write(value: &Self::Of) -> Value;

    /// Puts what one source says over what the sources before it said.
    fn assign(slot: &mut Self::Of, value: Self::Of) {
        *slot = value;
    }
}

pub struct Flag;

impl Kind for Flag {
    type Of = bool;

    fn expects() -> String {
        "true or false".to_owned()
    }

    fn read(given: &Given) -> Option<bool> {
        match given {
            Given::Bool(value) => Some(*value),
            // Redis's words too, for flags and variables.
            Given::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Some(true),
                "false" | "no" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    fn write(value: &bool) -> Value {
        (*value).into()
    }
}

/// A whole number of type `T` from `MIN` to `MAX`.
pub struct Whole<T, const MIN: i64 = 0, const MAX: i64 = { i64::MAX }>(PhantomData<T>);

impl<T: TryFrom<i64> + Copy, const MIN: i64, const MAX: i64> Kind for Whole<T, MIN, MAX>
where
    i64: TryFrom<T>,
{
    type Of = T;

    fn expects() -> String {
        match MAX {
            i64::MAX => format!("a whole number, at least {MIN}"),
            _ => format!("a whole number from {MIN} to {MAX}"),
        }
    }

    fn read(given: &Given) -> Option<T> {
        let number = match given {
            Given::Integer(number) => *number,
            Given::Text(text) => text.parse().ok()?,
            _ => return None,
        };
        (MIN..=MAX).contains(&number).then(|| T::try_from(number).ok()).flatten()
    }

    fn write(value: &T) -> Value {
        // What `read` gave came from an i64.
        i64::try_from(*value).unwrap_or(i64::MAX).into()
    }
}

/// The longest time in milliseconds that anything here waits: far beyond any use, and within what clocks and protocols can say.
pub const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

/// Milliseconds from `MIN` on.
pub type Milliseconds<const MIN: i64> = Whole<u64, MIN, YEAR_MS>;

/// A number of bytes, also with Redis's units: `k` is 1000, `kb` 1024.
pub struct Bytes;

const UNITS: [(&str, u64); 7] =
    [("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10), ("g", 1_000_000_000), ("m", 1_000_000), ("k", 1000), ("b", 1)];

impl Kind for Bytes {
    type Of = u64;

    fn expects() -> String {
        "a number of bytes such as 1048576, \"64kb\" or \"512mb\"".to_owned()
    }

    fn read(given: &Given) -> Option<u64> {
        let text = match given {
            Given::Integer(number) => return u64::try_from(*number).ok(),
            other => other.text()?.to_ascii_lowercase(),
        };
        let unit = UNITS.iter().find_map(|(unit, size)| text.strip_suffix(unit).map(|number| (number, *size)));
        let (number, size) = unit.unwrap_or((&text, 1));
        number.parse::<u64>().ok()?.checked_mul(size).filter(|bytes| *bytes <= i64::MAX as u64)
    }

    fn write(value: &u64) -> Value {
        for (unit, size) in &UNITS[..3] {
            if *value > 0 && value.is_multiple_of(*size) {
                return format!("{}{unit}", value / size).into();
            }
        }
        i64::try_from(*value).unwrap_or(i64::MAX).into()
    }
}

fn number(given: &Given) -> Option<f64> {
    match given {
        Given::Integer(number) => Some(*number as f64),
        Given::Float(number) => Some(*number),
        Given::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// A size or a time: fractions are allowed, zero is not.
pub struct Positive;

impl Kind for Positive {
    type Of = f64;

    fn expects() -> String {
        "a number greater than 0".to_owned()
    }

    fn read(given: &Given) -> Option<f64> {
        number(given).filter(|number| number.is_finite() && *number > 0.0)
    }

    fn write(value: &f64) -> Value {
        (*value).into()
    }
}

/// Seconds between two things: as a clock can wait for, and not without a pause.
pub struct Seconds;

impl Kind for Seconds {
    type Of = f64;

    fn expects() -> String {
        format!("a number of seconds from 0.001 to {}", YEAR_MS / 1000)
    }

    fn read(given: &Given) -> Option<f64> {
        number(given).filter(|seconds| (0.001..=(YEAR_MS / 1000) as f64).contains(seconds))
    }

    fn write(value: &f64) -> Value {
        (*value).into()
    }
}

pub struct Ratio;

impl Kind for Ratio {
    type Of = f64;

    fn expects() -> String {
        "a number from 0.0 to 1.0".to_owned()
    }

    fn read(given: &Given) -> Option<f64> {
        number(given).filter(|number| (0.0..=1.0).contains(number))
    }

    fn write(value: &f64) -> Value {
        (*value).into()
    }
}

/// A number that -1 lifts.
pub struct Limit;

impl Kind for Limit {
    type Of = Option<usize>;

    fn expects() -> String {
        "a whole number, or -1 for no limit".to_owned()
    }

    fn read(given: &Given) -> Option<Option<usize>> {
        match <Whole<i64, -1>>::read(given)? {
            -1 => Some(None),
            limit => usize::try_from(limit).ok().map(Some),
        }
    }

    fn write(value: &Option<usize>) -> Value {
        value.map_or(-1, |limit| limit as i64).into()
    }
}

pub struct NotNegative;

impl Kind for NotNegative {
    type Of = f64;

    fn expects() -> String {
        "a number of at least 0".to_owned()
    }

    fn read(given: &Given) -> Option<f64> {
        number(given).filter(|number| *number >= 0.0 && number.is_finite())
    }

    fn write(value: &f64) -> Value {
        (*value).into()
    }
}

/// One of a few names.
pub struct OneOf<T>(PhantomData<T>);

impl<T: Choice> Kind for OneOf<T> {
    type Of = T;

    fn expects() -> String {
        let names: Vec<String> = T::NAMES.iter().map(|(name, _)| format!("{name:?}")).collect();
        match names.split_last() {
            Some((last, others)) if !others.is_empty() => {
                format!("{} or {last}", others.join(", "))
            }
            _ => names.concat(),
        }
    }

    fn read(given: &Given) -> Option<T> {
        match given {
            // For a choice between `yes` and `no`.
            Given::Bool(value) => T::of_name(if *value { "yes" } else { "no" }),
            other => T::of_name(other.text()?),
        }
    }

    fn write(value: &T) -> Value {
        value.name().into()
    }
}

/// A text that is not empty.
pub struct Text;

impl Kind for Text {
    type Of = String;

    fn expects() -> String {
        "a text that is not empty".to_owned()
    }

    fn read(given: &Given) -> Option<String> {
        given.text().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn write(value: &String) -> Value {
        value.into()
    }
}

/// Pairs of seconds and changes, as Redis's `save` has them.
pub struct SavePoints;

impl Kind for SavePoints {
    type Of = String;

    fn expects() -> String {
        "pairs of seconds and changes such as \"3600 1 300 100\"".to_owned()
    }

    fn read(given: &Given) -> Option<String> {
        given.text().filter(|text| save_points(text).is_some()).map(str::to_owned)
    }

    fn write(value: &String) -> Value {
        value.into()
    }
}

/// A text; an empty one means that there is none.
pub struct OptionalText;

impl Kind for OptionalText {
    type Of = Option<String>;

    fn expects() -> String {
        "a text".to_owned()
    }

    fn read(given: &Given) -> Option<Option<String>> {
        given.text().map(|text| (!text.is_empty()).then(|| text.to_owned()))
    }

    fn write(value: &Option<String>) -> Value {
        value.as_deref().unwrap_or_default().into()
    }
}

/// A value of another kind; an empty text means that there is none.
pub struct Optional<K>(PhantomData<K>);

impl<K: Kind> Kind for Optional<K> {
    type Of = Option<K::Of>;

    fn expects() -> String {
        K::expects()
    }

    fn read(given: &Given) -> Option<Self::Of> {
        if given.text() == Some("") { Some(None) } else { K::read(given).map(Some) }
    }

    fn write(value: &Self::Of) -> Value {
        value.as_ref().map_or_else(|| "".into(), K::write)
    }
}

/// Texts; in a flag or a variable separated by commas.
pub struct Texts;

impl Kind for Texts {
    type Of = Vec<String>;

    fn expects() -> String {
        "a list of texts".to_owned()
    }

    fn read(given: &Given) -> Option<Vec<String>> {
        match given {
            Given::List(items) => items.iter().map(Text::read).collect(),
            other => other.text().map(texts),
        }
    }

    fn write(value: &Vec<String>) -> Value {
        value.iter().map(String::as_str).collect::<Array>().into()
    }
}

/// [`Texts`] that are rules of a schedule.
pub struct ScheduleRules;

impl Kind for ScheduleRules {
    type Of = Vec<String>;

    fn expects() -> String {
        "rules such as [\"22:00-06:00=0.01\"]".to_owned()
    }

    fn read(given: &Given) -> Option<Vec<String>> {
        Texts::read(given).filter(|rules| Schedule::parse(rules).is_ok())
    }

    fn write(value: &Vec<String>) -> Value {
        Texts::write(value)
    }
}

/// [`Texts`] that are rules of the tail.
pub struct TailRules;

impl Kind for TailRules {
    type Of = Vec<String>;

    fn expects() -> String {
        TailSettings::EXPECTED.to_owned()
    }

    fn read(given: &Given) -> Option<Vec<String>> {
        Texts::read(given).filter(|rules| TailSettings::check(rules).is_ok())
    }

    fn write(value: &Vec<String>) -> Value {
        Texts::write(value)
    }
}

/// Names with a share each; in a flag or a variable `name=share,name=share`. A source adds to those before it.
pub struct Rates;

impl Kind for Rates {
    type Of = BTreeMap<String, f64>;

    fn expects() -> String {
        "a table of numbers from 0.0 to 1.0, or a list such as PING=0.0,GET=0.1".to_owned()
    }

    fn read(given: &Given) -> Option<Self::Of> {
        let rate = |(name, text): (&String, &String)| Some((name.clone(), Ratio::read(&Given::Text(text.clone()))?));
        match given {
            Given::Pairs(pairs) => pairs.iter().map(rate).collect(),
            other => rates(other.text()?),
        }
    }

    fn write(value: &Self::Of) -> Value {
        value.iter().map(|(name, rate)| (name.as_str(), *rate)).collect::<InlineTable>().into()
    }

    fn assign(slot: &mut Self::Of, value: Self::Of) {
        slot.extend(value);
    }
}

pub struct Directory;

impl Kind for Directory {
    type Of = PathBuf;

    fn expects() -> String {
        "a directory".to_owned()
    }

    fn read(given: &Given) -> Option<PathBuf> {
        Text::read(given).map(PathBuf::from)
    }

    fn write(value: &PathBuf) -> Value {
        // It was read from a text.
        value.to_string_lossy().into_owned().into()
    }
}

pub struct Address;

impl Kind for Address {
    type Of = IpAddr;

    fn expects() -> String {
        "an IP address such as \"127.0.0.1\"".to_owned()
    }

    fn read(given: &Given) -> Option<IpAddr> {
        given.text()?.parse().ok()
    }

    fn write(value: &IpAddr) -> Value {
        value.to_string().into()
    }
}

/// One or more addresses; in a flag or a variable separated by commas or spaces.
pub struct Addresses;

impl Kind for Addresses {
    type Of = Vec<IpAddr>;

    fn expects() -> String {
        "IP addresses such as [\"127.0.0.1\", \"::1\"]".to_owned()
    }

    fn read(given: &Given) -> Option<Vec<IpAddr>> {
        let addresses: Vec<IpAddr> = match given {
            Given::List(items) => items.iter().map(Address::read).collect::<Option<_>>()?,
            other => {
                let items = other.text()?.split([',', ' ']).filter(|item| !item.is_empty());
                items.map(|item| item.parse().ok()).collect::<Option<_>>()?
            }
        };
        (!addresses.is_empty()).then_some(addresses)
    }

    fn write(value: &Vec<IpAddr>) -> Value {
        value.iter().map(IpAddr::to_string).collect::<Array>().into()
    }
}

/// Names with a text each; in a flag or a variable `name=value,name=value`, percent-encoded as in
/// `OTEL_RESOURCE_ATTRIBUTES`. A source adds to those before it.
pub struct Pairs;

impl Kind for Pairs {
    type Of = BTreeMap<String, String>;

    fn expects() -> String {
        "a table, or a list such as name=value,name=value".to_owned()
    }

    fn read(given: &Given) -> Option<Self::Of> {
        match given {
            Given::Pairs(pairs) => Some(pairs.clone()),
            other => other.text()?.split(',').filter(|pair| !pair.trim().is_empty()).map(pair).collect(),
        }
    }

    fn write(value: &Self::Of) -> Value {
        value.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<InlineTable>().into()
    }

    fn assign(slot: &mut Self::Of, value: Self::Of) {
        slot.extend(value);
    }
}

/// [`Pairs`] whose names are HTTP headers: compared, and sent, in lower case.
pub struct Headers;

impl Kind for Headers {
    type Of = BTreeMap<String, String>;

    fn expects() -> String {
        Pairs::expects()
    }

    fn read(given: &Given) -> Option<Self::Of> {
        let pairs = Pairs::read(given)?;
        Some(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }

    fn write(value: &Self::Of) -> Value {
        Pairs::write(value)
    }

    fn assign(slot: &mut Self::Of, value: Self::Of) {
        Pairs::assign(slot, value);
    }
}

fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim();
    (!name.is_empty()).then_some(())?;
    Some((percent_decoded(name)?, percent_decoded(value.trim())?))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Given {
        Given::Text(text.to_owned())
    }

    #[test]
    fn sizes_take_redis_s_units() {
        let sizes = [("100", 100), ("1k", 1000), ("1kb", 1024), ("512MB", 512 << 20), ("2g", 2_000_000_000), ("7b", 7)];
        for (given, bytes) in sizes {
            assert_eq!(Bytes::read(&text(given)), Some(bytes), "{given}");
        }
        for wrong in ["", "mb", "-1", "1.5mb", "1tb", "99999999999gb"] {
            assert_eq!(Bytes::read(&text(wrong)), None, "{wrong}");
        }
        assert_eq!(Bytes::read(&Given::Integer(-1)), None);
        assert_eq!(Bytes::write(&(512 << 20)).as_str(), Some("512mb"));
        assert_eq!(Bytes::write(&1000).as_integer(), Some(1000));
        assert_eq!(Bytes::write(&0).as_integer(), Some(0));
    }

    #[test]
    fn whole_numbers_keep_to_their_range_and_type() {
        assert_eq!(Whole::<u16, 0, 65_535>::read(&Given::Integer(65_535)), Some(65_535));
        assert_eq!(Whole::<u16, 0, 65_535>::read(&Given::Integer(65_536)), None);
        assert_eq!(Whole::<i64, -1>::read(&text("-1")), Some(-1));
        assert_eq!(Whole::<u64, 1>::read(&text("0")), None);
        assert_eq!(Whole::<u64>::read(&Given::Float(1.0)), None);
    }

    #[test]
    fn a_ratio_is_a_number_from_0_to_1() {
        assert_eq!(Ratio::read(&Given::Integer(1)), Some(1.0));
        assert_eq!(Ratio::read(&text("0.25")), Some(0.25));
        for wrong in ["-0.1", "1.1", "NaN", "lots"] {
            assert_eq!(Ratio::read(&text(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn pairs_are_decoded_and_lists_of_addresses_split() {
        let pairs = Pairs::read(&text("a=b, service.name = x%20y ,c=d=e,")).unwrap();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "b"), ("c", "d=e"), ("service.name", "x y")]);
        for wrong in ["a", "=b", "a=%", "a=%zz", "a=%+1"] {
            assert_eq!(Pairs::read(&text(wrong)), None, "{wrong}");
        }
        assert_eq!(Addresses::read(&text("127.0.0.1 ::1")).unwrap().len(), 2);
        assert_eq!(Addresses::read(&text("")), None);
        assert_eq!(Addresses::read(&text("localhost")), None);
    }
}
