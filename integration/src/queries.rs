//! The PromQL of the documentation, query by query, and what the answer to each must be like.

use ferrite_telemetry::Tier;
use ferrite_telemetry::schema::Label;

use crate::prometheus_server::Element;

/// A query that the documentation gives.
pub struct Query {
    pub title: &'static str,
    pub promql: &'static str,
    /// What tells the answer's elements apart, and for which values of it there must be one. Without it there is one element.
    pub by: Option<(Label, &'static [&'static str])>,
    /// The least and the greatest value that makes sense.
    pub range: (f64, f64),
}

/// Commands that the load consists of.
const COMMANDS: &[&str] = &["GET", "SET"];
const TIERS: &[&str] = &[Tier::Mutable.as_str(), Tier::ReadOnly.as_str(), Tier::Disk.as_str()];

/// All of them, letter for letter.
pub const QUERIES: &[Query] = &[
    Query {
        title: "Commands per second by type",
        promql: "sum(rate(ferrite_commands_total[1m])) by (command)",
        by: Some((Label::Command, COMMANDS)),
        range: (f64::MIN_POSITIVE, 1e7),
    },
    Query {
        title: "P99 command latency",
        promql: "histogram_quantile(0.99, sum(rate(ferrite_command_duration_bucket[5m])) by (le, command))",
        by: Some((Label::Command, COMMANDS)),
        range: (f64::MIN_POSITIVE, 10.0),
    },
    Query { title: "Cache hit rate", promql: "ferrite_cache_hit_rate", by: None, range: (0.01, 1.0) },
    Query {
        title: "HybridLog tier sizes",
        promql: "ferrite_hybridlog_tier_size",
        by: Some((Label::Tier, TIERS)),
        range: (0.0, 1e12),
    },
    Query {
        title: "Memory utilization percentage",
        promql: "ferrite_memory_used / ferrite_memory_max * 100",
        by: None,
        range: (f64::MIN_POSITIVE, 100.0),
    },
];

impl Query {
    /// Whether this is the answer that a dashboard's panel needs.
    pub fn check(&self, answer: &[Element]) -> Result<(), String> {
        let refuse = |reason: &str| Err(format!("{}: {reason}: {answer:?}", self.title));
        let (least, greatest) = self.range;
        let good = |element: &&Element| (least..=greatest).contains(&element.value);
        let Some((label, wanted)) = self.by else {
            return match answer {
                [element] if good(&element) => Ok(()),
                [_] => refuse("the value makes no sense"),
                _ => refuse("not one element"),
            };
        };
        for value in wanted {
            let mut of_value =
                answer.iter().filter(|element| element.labels.get(label.as_str()).is_some_and(|l| l == value));
            match (of_value.next(), of_value.next()) {
                (Some(element), None) if good(&element) => {}
                (Some(_), None) => return refuse(&format!("the value of {value} makes no sense")),
                (None, _) => return refuse(&format!("nothing of {value}")),
                (Some(_), Some(_)) => return refuse(&format!("more than one element of {value}")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(labels: &[(&str, &str)], value: f64) -> Element {
        Element { labels: labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(), value }
    }

    #[test]
    fn an_answer_is_judged_by_its_labels_and_values() {
        let by_command = &QUERIES[0];
        let [get, set] = [element(&[("command", "GET")], 5.0), element(&[("command", "SET")], 2.5)];
        assert_eq!(by_command.check(&[get.clone(), set.clone()]), Ok(()));
        for wrong in [
            vec![],
            vec![get.clone()],
            vec![element(&[("verb", "GET")], 5.0), set.clone()],
            vec![get.clone(), get.clone(), set.clone()],
            vec![get.clone(), element(&[("command", "SET")], 0.0)],
            vec![get.clone(), element(&[("command", "SET")], f64::NAN)],
        ] {
            assert!(by_command.check(&wrong).is_err(), "{wrong:?}");
        }
        let rate = &QUERIES[2];
        assert_eq!(rate.check(&[element(&[], 0.5)]), Ok(()));
        for wrong in [vec![], vec![element(&[], 1.5)], vec![element(&[], 0.5), element(&[], 0.5)]] {
            assert!(rate.check(&wrong).is_err(), "{wrong:?}");
        }
    }
}
