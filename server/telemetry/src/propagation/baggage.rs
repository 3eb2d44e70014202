//! W3C Baggage (<https://www.w3.org/TR/baggage/>).

use std::borrow::Cow;

/// What a receiver has to take at least, and here is all that it takes: members beyond are passed over.
const MEMBERS_MAX: usize = 64;
/// Of all members with the commas between them.
const BYTES_MAX: usize = 8192;

/// A list of members, checked and decoded as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage<'a>(Cow<'a, [u8]>);

/// One member of a [`Baggage`]; its properties are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'b> {
    /// A token: it is not encoded.
    pub key: &'b [u8],
    value: &'b [u8],
}

impl<'a> Baggage<'a> {
    /// What a header's value says; checked as it is read.
    pub fn new(text: Cow<'a, [u8]>) -> Self {
        Self(text)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The well-formed members within the limits, in order; of a key that occurs twice each. One that is malformed is passed
    /// over alone.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        // What begins beyond the limit, or reaches beyond it, is not taken.
        let mut end = 0;
        self.0
            .split(|byte| *byte == b',')
            .take_while(move |member| {
                end += member.len() + usize::from(end > 0);
                end <= BYTES_MAX
            })
            .filter(|member| !member.trim_ascii().is_empty())
            .take(MEMBERS_MAX)
            .filter_map(Member::parse)
    }
}

impl Baggage<'_> {
    /// The members whose keys are among these, in the order of these; of a key that occurs twice the last.
    pub fn chosen<'b>(&'b self, keys: &'b [String]) -> impl Iterator<Item = (&'b str, Cow<'b, str>)> {
        keys.iter().filter_map(|key| {
            let member = self.members().filter(|member| member.key == key.as_bytes()).last()?;
            Some((key.as_str(), member.value()))
        })
    }
}

impl<'b> Member<'b> {
    fn parse(text: &'b [u8]) -> Option<Self> {
        let pair = text.split(|byte| *byte == b';').next()?;
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        let well_formed =
            !key.is_empty() && key.iter().all(|byte| is_token(*byte)) && value.iter().all(|byte| is_octet(*byte));
        well_formed.then_some(Self { key, value })
    }

    /// The value, percent-decoded; what is not UTF-8 then is U+FFFD. A percent sign without two digits stays.
    pub fn value(&self) -> Cow<'b, str> {
        if !self.value.contains(&b'%') {
            return String::from_utf8_lossy(self.value);
        }
        let mut decoded = Vec::with_capacity(self.value.len());
        let mut rest = self.value;
        while let Some((&byte, tail)) = rest.split_first() {
            let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit)).and_then(super::hex);
            match digits {
                Some(code) if byte == b'%' => {
                    decoded.push(code as u8);
                    rest = &tail[2..];
                }
                _ => {
                    decoded.push(byte);
                    rest = tail;
                }
            }
        }
        String::from_utf8_lossy(&decoded).into_owned().into()
    }
}

/// RFC 7230, section 3.2.6.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `baggage-octet`: printable ASCII without blank, quote, comma, semicolon and backslash.
fn is_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let baggage = Baggage::new(text.as_bytes().into());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a token");
        baggage.members().map(|member| (text(member.key), member.value().into_owned())).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Section 3.3.3 of the specification, and its second.
    #[test]
    fn the_examples_of_the_specification() {
        let text = "key1=value1,key2 = value2 ; property1;property2, key3=value3; propertyKey=propertyValue";
        assert_eq!(read(text), pairs(&[("key1", "value1"), ("key2", "value2"), ("key3", "value3")]));
        let text = "serverNode=DF%2028,userId=Am%C3%A9lie,isProduction=false";
        assert_eq!(read(text), pairs(&[("serverNode", "DF 28"), ("userId", "Amélie"), ("isProduction", "false")]));
    }

    #[test]
    fn values_are_decoded_as_far_as_they_can_be() {
        assert_eq!(
            read("a=%,b=%4,c=%zz,d=%41%,e=,f=x=y"),
            pairs(&[("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "A%"), ("e", ""), ("f", "x=y")])
        );
        assert_eq!(read("a=%ff%41"), pairs(&[("a", "\u{fffd}A")]));
        assert_eq!(read("a=%+1"), pairs(&[("a", "%+1")]));
    }

    #[test]
    fn a_malformed_member_is_passed_over_alone() {
        for bad in ["", "a", "=1", "a b=1", "a=b c", "a=\"q\"", "a=\u{e9}", "a@b=1", "a=b\\"] {
            assert_eq!(read(&format!("{bad},good=1")), pairs(&[("good", "1")]), "{bad:?}");
        }
    }

    #[test]
    fn chosen_are_those_that_are_allowed_and_the_last_of_each() {
        let baggage = Baggage::new(b"tenant.id=a,user=u,tenant.id=b%20c,Tenant.tier=x".as_slice().into());
        let keys = ["tenant.tier", "tenant.id", "none"].map(str::to_owned);
        let chosen: Vec<_> = baggage.chosen(&keys).collect();
        assert_eq!(chosen, [("tenant.id", "b c".into())]);
    }

    #[test]
    fn limits_hold_for_members_and_bytes() {
        let many: Vec<String> = (0..70).map(|n| format!("k{n}=v")).collect();
        assert_eq!(read(&many.join(",")).len(), 64);
        let fits = format!("a={},b={}", "x".repeat(4000), "y".repeat(8192 - 4002 - 3));
        assert_eq!((fits.len(), read(&fits).len()), (8192, 2));
        assert_eq!(read(&format!("{fits}z")).len(), 1);
        assert_eq!(read(&format!("{fits},c=1")).len(), 2);
    }

    proptest! {
        #[test]
        fn any_value_survives_percent_encoding(value in "\\PC{0,40}") {
            let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(read(&format!("k={encoded}")), pairs(&[("k", &value)]));
        }
    }
}
