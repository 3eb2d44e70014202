//! What is kept although no one chose it, because of how it went.

use std::fmt::{self, Write};
use std::net::IpAddr;

use super::policy::Facts;
use crate::schema::{Attribute, SampledBy, Tier};

/// `[telemetry.tail]`. By default it keeps nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TailSettings {
    /// Keeps every trace of a command that failed, and of other work that did.
    pub errors: bool,
    /// Keeps every command whose execution, waits for the disk included, took at least as many milliseconds; 0 keeps none.
    pub slow_ms: f64,
    /// Keeps every command with one of these, each as `attribute=value`: its name, its key, the client's address, a tier that
    /// was visited, or a member of the baggage that is taken. A `*` at the value's end stands for any rest.
    pub attributes: Vec<String>,
    /// Keeps them under an unsampled parent as well, and where nothing else is exported.
    pub override_parent: bool,
}

impl TailSettings {
    /// What [`TailSettings::attributes`] can be, after "expected".
    pub const EXPECTED: &str = "rules such as [\"ferrite.command.key=session:*\"], about a command's name or key, net.peer.ip, \
                                ferrite.storage.tier or members of the baggage";

    /// Whether such [`TailSettings::attributes`] can be followed, or which one not, and why.
    pub fn check(attributes: &[String]) -> Result<(), String> {
        attributes.iter().try_for_each(|text| Rule::parse(text).map(drop))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tail {
    errors: bool,
    slow_ns: u64,
    attributes: Vec<Rule>,
    pub override_parent: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    what: What,
    value: String,
    /// The value is only the beginning.
    prefix: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Name,
    Key,
    /// This address; `None`: as its text says.
    Peer(Option<IpAddr>),
    Tier,
    Baggage(String),
}

impl Tail {
    /// Or the rule that is not understood, and why.
    pub fn new(settings: &TailSettings) -> Result<Self, String> {
        Ok(Self {
            errors: settings.errors,
            slow_ns: (settings.slow_ms.max(0.0) * 1e6) as u64,
            attributes: settings.attributes.iter().map(|text| Rule::parse(text)).collect::<Result<_, _>>()?,
            override_parent: settings.override_parent,
        })
    }

    /// Whether more than failure and time are looked at.
    pub fn asks_for_attributes(&self) -> bool {
        !self.attributes.is_empty()
    }

    /// Whether a rule asks for the tiers that a command visited.
    pub fn asks_for_tiers(&self) -> bool {
        self.attributes.iter().any(|rule| rule.what == What::Tier)
    }

    /// By which rule it is kept.
    pub fn keeps(&self, facts: &Facts<'_>) -> Option<SampledBy> {
        let by_attribute = || self.attributes.iter().any(|rule| rule.holds(facts)).then_some(SampledBy::Attribute);
        self.keeps_outcome(facts.failed, facts.execution_ns).or_else(by_attribute)
    }

    /// The same of the rules about failure and time.
    #[inline]
    pub fn keeps_outcome(&self, failed: bool, execution_ns: u64) -> Option<SampledBy> {
        if self.errors && failed {
            Some(SampledBy::Error)
        } else if self.slow_ns > 0 && execution_ns >= self.slow_ns {
            Some(SampledBy::Slow)
        } else {
            None
        }
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(format!("\"{text}\" is no rule of the tail: expected attribute=value"));
        };
        let (value, prefix) = value.strip_suffix('*').map_or((value, false), |value| (value, true));
        let mut value = value.to_owned();
        let ours = |attribute: Attribute| key == attribute.as_str();
        let what = if ours(Attribute::CommandName) || ours(Attribute::DbOperation) {
            value.make_ascii_uppercase();
            What::Name
        } else if ours(Attribute::CommandKey) {
            What::Key
        } else if ours(Attribute::NetPeerIp) {
            What::Peer(if prefix { None } else { value.parse().ok() })
        } else if ours(Attribute::StorageTier) {
            What::Tier
        } else if Attribute::ALL.iter().any(|attribute| ours(*attribute)) {
            return Err(format!(
                "\"{text}\" is no rule of the tail: it can ask for {}, {}, {}, {} and members of the baggage",
                Attribute::CommandName,
                Attribute::CommandKey,
                Attribute::NetPeerIp,
                Attribute::StorageTier,
            ));
        } else {
            What::Baggage(key.to_owned())
        };
        Ok(Self { what, value, prefix })
    }

    fn holds(&self, facts: &Facts<'_>) -> bool {
        match &self.what {
            What::Name => facts.names_and_keys().any(|(name, _)| self.is(name)),
            What::Key => facts.names_and_keys().any(|(_, key)| key.is_some_and(|key| self.is(key))),
            What::Peer(Some(wanted)) => facts.peer == Some(*wanted),
            What::Peer(None) => facts.peer.is_some_and(|ip: IpAddr| self.is(Written::of(ip).as_bytes())),
            What::Tier => {
                Tier::ALL.iter().any(|tier| facts.tiers & 1 << *tier as u8 != 0 && self.is(tier.as_str().as_bytes()))
            }
            What::Baggage(key) => facts.member(key).is_some_and(|value| self.is(value)),
        }
    }

    fn is(&self, value: &[u8]) -> bool {
        if self.prefix { value.starts_with(self.value.as_bytes()) } else { value == self.value.as_bytes() }
    }
}

/// An address as text, without an allocation.
struct Written {
    text: [u8; ADDRESS_BYTES_MAX],
    len: usize,
}

/// Eight groups of four digits, or six of them and an address of version 4.
const ADDRESS_BYTES_MAX: usize = 45;

impl Written {
    fn of(ip: IpAddr) -> Self {
        let mut written = Self { text: [0; ADDRESS_BYTES_MAX], len: 0 };
        write!(written, "{ip}").expect("it is long enough for any address");
        written
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

impl fmt::Write for Written {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.len + part.len();
        self.text.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(part.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(settings: &TailSettings, facts: &Facts<'_>) -> Option<SampledBy> {
        Tail::new(settings).expect("valid").keeps(facts)
    }

    fn by_attribute(rule: &str, facts: &Facts<'_>) -> bool {
        let settings = TailSettings { attributes: vec![rule.to_owned()], ..TailSettings::default() };
        kept(&settings, facts) == Some(SampledBy::Attribute)
    }

    #[test]
    fn failures_and_slow_commands_by_their_rules() {
        let (failed, slow) =
            (Facts { failed: true, ..Facts::default() }, Facts { execution_ns: 50_000_000, ..Facts::default() });
        let errors = TailSettings { errors: true, ..TailSettings::default() };
        let slower = TailSettings { slow_ms: 50.0, ..TailSettings::default() };
        assert_eq!((kept(&errors, &failed), kept(&errors, &slow)), (Some(SampledBy::Error), None));
        assert_eq!((kept(&slower, &failed), kept(&slower, &slow)), (None, Some(SampledBy::Slow)));
        let nearly = Facts { execution_ns: 49_999_999, ..Facts::default() };
        assert_eq!((kept(&slower, &nearly), kept(&TailSettings::default(), &failed)), (None, None));
    }

    #[test]
    fn attributes_are_compared_whole_or_by_their_beginning() {
        let mut baggage = Vec::new();
        crate::values::put_baggage([("tenant.id", "acme".into())].into_iter(), &mut baggage);
        let facts = Facts {
            name: b"CONFIG SET",
            key: Some(b"user:123"),
            peer: Some("10.1.2.3".parse().expect("an address")),
            tiers: 1 << Tier::Disk as u8,
            baggage: &baggage,
            ..Facts::default()
        };
        for rule in [
            "ferrite.command.name=config set",
            "db.operation=CONFIG*",
            "ferrite.command.key=user:*",
            "ferrite.command.key=user:123",
            "net.peer.ip=10.1.*",
            "ferrite.storage.tier=disk",
            "tenant.id=acme",
        ] {
            assert!(by_attribute(rule, &facts), "{rule}");
        }
        for rule in [
            "ferrite.command.key=user",
            "ferrite.storage.tier=mutable",
            "tenant.id=acm",
            "tenant.tier=*",
            "net.peer.ip=10.1",
        ] {
            assert!(!by_attribute(rule, &facts), "{rule}");
        }
        assert!(!by_attribute("ferrite.command.key=*", &Facts::default()));
    }

    #[test]
    fn any_address_is_written_as_it_is_shown() {
        for ip in
            ["0.0.0.0", "255.255.255.255", "::", "::ffff:255.255.255.255", "1111:2222:3333:4444:5555:6666:7777:8888"]
        {
            let ip: IpAddr = ip.parse().expect("an address");
            assert_eq!(Written::of(ip).as_bytes(), ip.to_string().as_bytes());
        }
    }

    #[test]
    fn a_rule_that_cannot_be_followed_is_named() {
        for bad in ["tenant.id", "ferrite.aof.bytes=1"] {
            let settings = TailSettings { attributes: vec![bad.to_owned()], ..TailSettings::default() };
            assert!(Tail::new(&settings).expect_err(bad).contains(bad));
        }
    }
}
