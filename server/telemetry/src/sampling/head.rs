//! Head sampling: the six samplers that `OTEL_TRACES_SAMPLER` names, deciding as the Go and Python SDKs do, and a few of ours.

/// Which traces a sampler chooses, where no caller decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Probability {
    AlwaysOn,
    AlwaysOff,
    /// This part of all trace ids, between 0 and 1.
    Ratio(f64),
    /// The same, so that what a lower ratio chooses a higher one chooses too, and told in the tracestate.
    Consistent(f64),
    /// So many traces a second, the first that come.
    RateLimited(f64),
    /// So many traces a second by a ratio that follows the load.
    Adaptive(f64),
}

/// The sampler that was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSampler {
    pub probability: Probability,
    /// A caller's decision, where there is one, comes before the probability.
    pub parent_based: bool,
}

type Make = fn(f64) -> Probability;

/// The names, without `parentbased_` in front. The first three are the specification's, and those that a warning lists.
const NAMES: [(&str, Make); 6] = [
    ("always_on", |_| Probability::AlwaysOn),
    ("always_off", |_| Probability::AlwaysOff),
    ("traceidratio", Probability::Ratio),
    ("consistent_probability", Probability::Consistent),
    ("rate_limited", Probability::RateLimited),
    ("adaptive", Probability::Adaptive),
];

/// What a sampler of so many traces a second does if nobody says how many.
const PER_SECOND_DEFAULT: f64 = 100.0;

impl HeadSampler {
    /// From the configured `sample_rate`, `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; empty variables count as
    /// unset. The rate alone is `traceidratio`, and the argument alone replaces it. For a sampler with a ratio, the
    /// argument comes before the rate, and without either the ratio is 1; for one with traces a second it is their number.
    ///
    /// Bad values never fail: an unknown name falls back to `parentbased_always_on` (but not past a configured rate of
    /// zero: who switched export off keeps it off), a bad number is as good as none. The second part of the result has a
    /// warning for each.
    pub fn from_settings(sample_rate: Option<f64>, name: Option<&str>, argument: Option<&str>) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let set = |value: Option<&str>| value.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned);
        let (name, argument) = (set(name), set(argument));
        let rate = sample_rate.filter(|rate| {
            let good = (0.0..=1.0).contains(rate);
            if !good {
                warnings.push(format!("sample_rate is {rate}: expected a number between 0 and 1; it is ignored"));
            }
            good
        });
        let Some(name) = name else {
            let ratio = ratio(argument.as_deref(), rate, &mut warnings);
            return (Self { probability: Probability::Ratio(ratio), parent_based: false }, warnings);
        };
        let lower = name.to_ascii_lowercase();
        let (parent_based, plain) =
            lower.strip_prefix("parentbased_").map_or((false, lower.as_str()), |plain| (true, plain));
        if plain == "jaeger_remote" {
            let (probability, warning) = instead_of_remote(argument.as_deref(), rate);
            warnings.push(warning);
            return (Self { probability, parent_based }, warnings);
        }
        let known = NAMES.iter().find(|(known, _)| *known == plain);
        let sampler = match known {
            Some(("rate_limited" | "adaptive", make)) => {
                Self { probability: make(per_second(argument.as_deref(), &mut warnings)), parent_based }
            }
            Some((_, make)) => {
                Self { probability: make(ratio(argument.as_deref(), rate, &mut warnings)), parent_based }
            }
            None if rate == Some(0.0) => {
                warnings.push(format!(
                    "OTEL_TRACES_SAMPLER is \"{name}\", which is none of the samplers; sample_rate = 0.0 stays in force"
                ));
                Self { probability: Probability::AlwaysOff, parent_based: false }
            }
            None => {
                warnings.push(format!(
                    "OTEL_TRACES_SAMPLER is \"{name}\", which is none of always_on, always_off, traceidratio, \
                     parentbased_always_on, parentbased_always_off, parentbased_traceidratio; parentbased_always_on is used"
                ));
                Self { probability: Probability::AlwaysOn, parent_based: true }
            }
        };
        (sampler, warnings)
    }

    /// The name that selects this sampler.
    pub fn name(&self) -> &'static str {
        match (self.probability, self.parent_based) {
            (Probability::AlwaysOn, false) => "always_on",
            (Probability::AlwaysOff, false) => "always_off",
            (Probability::Ratio(_), false) => "traceidratio",
            (Probability::Consistent(_), false) => "consistent_probability",
            (Probability::RateLimited(_), false) => "rate_limited",
            (Probability::Adaptive(_), false) => "adaptive",
            (Probability::AlwaysOn, true) => "parentbased_always_on",
            (Probability::AlwaysOff, true) => "parentbased_always_off",
            (Probability::Ratio(_), true) => "parentbased_traceidratio",
            (Probability::Consistent(_), true) => "parentbased_consistent_probability",
            (Probability::RateLimited(_), true) => "parentbased_rate_limited",
            (Probability::Adaptive(_), true) => "parentbased_adaptive",
        }
    }

    /// Whether it chooses nothing without a caller.
    pub(super) fn is_off(&self) -> bool {
        matches!(self.probability, Probability::AlwaysOff | Probability::Ratio(0.0) | Probability::Consistent(0.0))
    }
}

fn ratio(argument: Option<&str>, rate: Option<f64>, warnings: &mut Vec<String>) -> f64 {
    let argument = argument.and_then(|text| match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Some(ratio),
        _ => {
            warnings.push(format!(
                "OTEL_TRACES_SAMPLER_ARG is \"{text}\": expected a number between 0 and 1; it is ignored"
            ));
            None
        }
    });
    argument.or(rate).unwrap_or(1.0)
}

fn per_second(argument: Option<&str>, warnings: &mut Vec<String>) -> f64 {
    match argument.map(|text| (text, text.parse::<f64>())) {
        None => PER_SECOND_DEFAULT,
        Some((_, Ok(number))) if number > 0.0 && number.is_finite() => number,
        Some((text, _)) => {
            warnings.push(format!(
                "OTEL_TRACES_SAMPLER_ARG is \"{text}\": expected traces a second, more than 0; {PER_SECOND_DEFAULT} is used"
            ));
            PER_SECOND_DEFAULT
        }
    }
}

/// No remote strategies are asked for: what its argument says about the time before they are known is used, of
/// `endpoint=…,pollingIntervalMs=…,initialSamplingRate=…`.
fn instead_of_remote(argument: Option<&str>, rate: Option<f64>) -> (Probability, String) {
    let initial =
        argument.unwrap_or_default().split(',').find_map(|pair| pair.trim().strip_prefix("initialSamplingRate="));
    let initial = initial.and_then(|text| text.parse::<f64>().ok()).filter(|ratio| (0.0..=1.0).contains(ratio));
    let ratio = initial.or(rate).unwrap_or(1.0);
    let warning = format!(
        "OTEL_TRACES_SAMPLER is jaeger_remote, but no strategies are fetched here; traceidratio with {ratio} is used"
    );
    (Probability::Ratio(ratio), warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rate: Option<f64>, name: Option<&str>, argument: Option<&str>) -> (&'static str, f64, usize) {
        let (sampler, warnings) = HeadSampler::from_settings(rate, name, argument);
        let number = match sampler.probability {
            Probability::AlwaysOn => 1.0,
            Probability::AlwaysOff => 0.0,
            Probability::Ratio(number)
            | Probability::Consistent(number)
            | Probability::RateLimited(number)
            | Probability::Adaptive(number) => number,
        };
        (sampler.name(), number, warnings.len())
    }

    #[test]
    fn settings_as_documented() {
        assert_eq!(settings(None, None, None), ("traceidratio", 1.0, 0));
        assert_eq!(settings(Some(0.1), None, None), ("traceidratio", 0.1, 0));
        assert_eq!(settings(Some(0.1), None, Some("0.5")), ("traceidratio", 0.5, 0));
        assert_eq!(settings(Some(0.1), Some("ALWAYS_on"), None), ("always_on", 1.0, 0));
        assert_eq!(settings(Some(1.0), Some("always_off"), Some("0.5")), ("always_off", 0.0, 0));
        assert_eq!(settings(None, Some("TraceIdRatio"), Some("0.25")), ("traceidratio", 0.25, 0));
        assert_eq!(settings(Some(0.2), Some("parentbased_traceidratio"), None), ("parentbased_traceidratio", 0.2, 0));
        assert_eq!(settings(None, Some("parentbased_traceidratio"), None), ("parentbased_traceidratio", 1.0, 0));
        assert_eq!(settings(None, Some("parentbased_always_off"), None), ("parentbased_always_off", 0.0, 0));
        assert_eq!(settings(Some(0.3), Some(""), Some(" ")), ("traceidratio", 0.3, 0));
        assert_eq!(settings(Some(0.3), Some("consistent_probability"), None), ("consistent_probability", 0.3, 0));
        let consistent = settings(None, Some("parentbased_consistent_probability"), Some("0.25"));
        assert_eq!(consistent, ("parentbased_consistent_probability", 0.25, 0));
        assert_eq!(settings(Some(0.3), Some("rate_limited"), Some("7.5")), ("rate_limited", 7.5, 0));
        assert_eq!(settings(None, Some("ParentBased_Adaptive"), None), ("parentbased_adaptive", 100.0, 0));
    }

    #[test]
    fn a_remote_sampler_is_its_initial_rate_and_a_warning() {
        let argument = Some("endpoint=http://localhost:14250,pollingIntervalMs=5000,initialSamplingRate=0.25");
        assert_eq!(settings(None, Some("parentbased_jaeger_remote"), argument), ("parentbased_traceidratio", 0.25, 1));
        assert_eq!(settings(Some(0.1), Some("jaeger_remote"), Some("initialSamplingRate=x")), ("traceidratio", 0.1, 1));
    }

    #[test]
    fn bad_values_warn_and_fall_back() {
        assert_eq!(settings(Some(0.1), Some("sometimes"), None), ("parentbased_always_on", 1.0, 1));
        assert_eq!(settings(Some(0.0), Some("sometimes"), None), ("always_off", 0.0, 1));
        for argument in ["1.5", "-0.1", "NaN", "ten"] {
            assert_eq!(settings(Some(0.1), None, Some(argument)), ("traceidratio", 0.1, 1), "{argument}");
        }
        assert_eq!(settings(Some(7.0), None, None), ("traceidratio", 1.0, 1));
        for argument in ["0", "-5", "inf", "many"] {
            assert_eq!(settings(None, Some("rate_limited"), Some(argument)), ("rate_limited", 100.0, 1), "{argument}");
        }
        assert_eq!(settings(Some(0.1), Some("parentbased_sometimes"), None), ("parentbased_always_on", 1.0, 1));
    }
}
