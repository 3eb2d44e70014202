//! Which attributes are named but not told.

use crate::schema::Attribute;

/// Names of attributes whose values are not told, whether they are ours or members of a caller's baggage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks(Vec<String>);

/// The same value under the old conventions and under the stable ones.
const TWINS: [(Attribute, Attribute); 6] = [
    (Attribute::DbSystem, Attribute::DbSystemName),
    (Attribute::DbOperation, Attribute::DbOperationName),
    (Attribute::DbStatement, Attribute::DbQueryText),
    (Attribute::NetPeerIp, Attribute::NetworkPeerAddress),
    (Attribute::NetPeerPort, Attribute::NetworkPeerPort),
    (Attribute::ErrorType, Attribute::DbResponseStatusCode),
];

/// What takes an attribute's place under the stable conventions.
pub(crate) fn stable_name(attribute: Attribute) -> Option<Attribute> {
    // The status code stands beside the type.
    let twin = TWINS.iter().find(|(old, _)| *old == attribute && *old != Attribute::ErrorType);
    twin.map(|(_, stable)| *stable)
}

impl Masks {
    /// Who names a value by one convention means the value: it is masked under its other name too, whichever is told.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        for (old, stable) in TWINS.map(|(old, stable)| (old.as_str(), stable.as_str())) {
            let is_named = |wanted: &str| names.iter().any(|name| name == wanted);
            match (is_named(old), is_named(stable)) {
                (true, false) => names.push(stable.to_owned()),
                (false, true) => names.push(old.to_owned()),
                _ => {}
            }
        }
        Self(names)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the value of the attribute, or member, of this name is not told.
    pub fn hides(&self, name: &str) -> bool {
        self.0.iter().any(|masked| masked == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_masked_under_both_of_its_names() {
        for (old, stable) in TWINS.map(|(old, stable)| (old.as_str(), stable.as_str())) {
            for named in [old, stable] {
                let masks = Masks::new([named.to_owned()]);
                assert!(masks.hides(old) && masks.hides(stable), "{named}");
                assert!(!masks.hides(Attribute::CommandKey.as_str()));
            }
        }
        assert!(Masks::new(["tenant.id".to_owned()]).hides("tenant.id"));
        assert!(Masks::default().is_empty() && !Masks::default().hides("db.statement"));
    }
}
