//! Rates by the time of day, in UTC.

/// One rule: from a minute of the day on, up to another one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Slot {
    from: u32,
    until: u32,
    rate: f64,
}

/// Rules such as `22:00-06:00=0.01`; the first that covers the time counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule(Vec<Slot>);

const DAY_MINUTES: u32 = 24 * 60;

impl Schedule {
    /// Or the rule that is not understood, and why.
    pub fn parse(rules: &[String]) -> Result<Self, String> {
        let slot = |rule: &String| {
            Slot::parse(rule).ok_or_else(|| {
                format!(
                    "\"{rule}\" is no rule of a schedule: expected HH:MM-HH:MM=rate, in UTC, as in 22:00-06:00=0.01"
                )
            })
        };
        rules.iter().map(slot).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn rate(&self, unix_ns: u64) -> Option<f64> {
        let minute = (unix_ns / 60_000_000_000) as u32 % DAY_MINUTES;
        self.0.iter().find(|slot| slot.covers(minute)).map(|slot| slot.rate)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Slot {
    fn parse(rule: &str) -> Option<Self> {
        let (times, rate) = rule.split_once('=')?;
        let (from, until) = times.split_once('-')?;
        let rate: f64 = rate.trim().parse().ok().filter(|rate| (0.0..=1.0).contains(rate))?;
        Some(Self { from: minute(from)?, until: minute(until)?, rate })
    }

    /// A slot that ends before it begins goes over midnight; one that ends when it begins is the whole day.
    fn covers(&self, minute: u32) -> bool {
        if self.from < self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

/// The minute of the day; `24:00` is its end.
fn minute(text: &str) -> Option<u32> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let two = |digits: &str| {
        (digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse::<u32>().ok())
            .flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rules: &[&str], hours: u64, minutes: u64) -> Option<f64> {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        let day = 20_000 * 86_400;
        Schedule::parse(&rules).expect("valid").rate((day + hours * 3600 + minutes * 60 + 59) * 1_000_000_000)
    }

    #[test]
    fn the_first_rule_that_covers_the_time_counts() {
        let rules = ["08:00-18:00=0.01", "22:00-06:00=1.0", "05:00-24:00=0.5"];
        let expected = [
            (0, 0, Some(1.0)),
            (5, 59, Some(1.0)),
            (6, 0, Some(0.5)),
            (8, 0, Some(0.01)),
            (17, 59, Some(0.01)),
            (18, 0, Some(0.5)),
            (22, 0, Some(1.0)),
        ];
        for (hours, minutes, expected) in expected {
            assert_eq!(rate(&rules, hours, minutes), expected, "{hours}:{minutes}");
        }
        assert_eq!((rate(&rules[..1], 7, 59), rate(&["12:00-12:00=0.2"], 3, 0)), (None, Some(0.2)));
    }

    #[test]
    fn a_bad_rule_is_named() {
        for bad in [
            "",
            "8:00-9:00=1",
            "08:00-09:00",
            "08:00-09:00=2",
            "08:60-09:00=1",
            "24:01-09:00=1",
            "08:00=1",
            "+8:00-09:00=1",
        ] {
            let message = Schedule::parse(&[bad.to_owned()]).expect_err(bad);
            assert!(message.contains(&format!("\"{bad}\"")), "{message}");
        }
    }
}
