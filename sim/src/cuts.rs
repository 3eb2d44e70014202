//! Commands that are left out: how a failing history is made shorter without becoming another one.
//!
//! Every client draws its commands from a generator of its own and numbers them. One that is cut is drawn all the same and not
//! sent, so that those that are left are the ones that the seed has always given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::sim::{Core, lock};

/// By the name of a client's generator, the numbers of what is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts(BTreeMap<String, BTreeSet<u64>>);

impl Cuts {
    /// The same with more left out.
    pub fn with(&self, name: &str, numbers: std::ops::Range<u64>) -> Self {
        let mut cuts = self.clone();
        cuts.0.entry(name.to_owned()).or_default().extend(numbers);
        cuts
    }

    /// How many commands are left out.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this one is left out.
    pub fn has(&self, name: &str, number: u64) -> bool {
        self.0.get(name).is_some_and(|numbers| numbers.contains(&number))
    }
}

/// As `client 0:3-17,20;client 1:0-5`.
impl fmt::Display for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, numbers)) in self.0.iter().filter(|(_, numbers)| !numbers.is_empty()).enumerate() {
            write!(f, "{}{name}:", if at == 0 { "" } else { ";" })?;
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for &number in numbers {
                match ranges.last_mut() {
                    Some((_, last)) if *last + 1 == number => *last = number,
                    _ => ranges.push((number, number)),
                }
            }
            let texts = ranges.iter().map(|(first, last)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            });
            f.write_str(&texts.collect::<Vec<_>>().join(","))?;
        }
        Ok(())
    }
}

impl FromStr for Cuts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cuts = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (name, ranges) = part.rsplit_once(':').ok_or_else(|| format!("{part:?} has no name and colon"))?;
            for range in ranges.split(',') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let number =
                    |text: &str| text.parse::<u64>().map_err(|error| format!("{range:?} is no range: {error}"));
                cuts = cuts.with(name, number(first)?..number(last)? + 1);
            }
        }
        Ok(cuts)
    }
}

/// Numbers what one generator draws.
#[derive(Clone)]
pub struct Script {
    core: Arc<Core>,
    name: String,
}

impl Script {
    pub(crate) fn new(core: Arc<Core>, name: &str) -> Self {
        Self { core, name: name.to_owned() }
    }

    /// Counts the next command, or the next few that belong together; false if it is not to be sent.
    pub fn keeps_next(&self) -> bool {
        let number = {
            let mut drawn = lock(&self.core.drawn);
            let drawn = drawn.entry(self.name.clone()).or_default();
            *drawn += 1;
            *drawn - 1
        };
        !self.core.cuts.has(&self.name, number)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_again() {
        let cuts = Cuts::default().with("client 0", 3..18).with("client 0", 20..21).with("client 1", 0..2);
        assert_eq!(cuts.to_string(), "client 0:3-17,20;client 1:0-1");
        assert_eq!(cuts.to_string().parse(), Ok(cuts.clone()));
        assert_eq!((cuts.len(), cuts.has("client 0", 17), cuts.has("client 0", 18)), (18, true, false));
        assert_eq!("".parse(), Ok(Cuts::default()));
        for wrong in ["client 0", "client 0:x", "client 0:1-"] {
            assert!(wrong.parse::<Cuts>().is_err(), "{wrong}");
        }
    }
}
