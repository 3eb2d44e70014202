//! Head sampling: the six samplers that `OTEL_TRACES_SAMPLER` names, deciding as the Go and Python SDKs do.

use crate::context::TraceId;

/// What to do without a parent, or regardless of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SamplerChoice {
    AlwaysOn,
    AlwaysOff,
    /// This part of all trace ids, between 0 and 1.
    Ratio(f64),
}

/// Decides whether a trace is exported. The recorder records it in any case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    choice: SamplerChoice,
    parent_based: bool,
    /// Half of the low half of a trace id must lie below this: of 2^63 values, the ratio's part.
    bound: u64,
}

impl Sampler {
    /// `parent_based`: a caller's decision, where there is one, comes before the choice.
    pub fn new(choice: SamplerChoice, parent_based: bool) -> Self {
        let bound = match choice {
            SamplerChoice::AlwaysOn => 1 << 63,
            SamplerChoice::AlwaysOff => 0,
            SamplerChoice::Ratio(ratio) => (ratio.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64,
        };
        Self { choice, parent_based, bound }
    }

    /// From the configured `sample_rate`, `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`; empty variables count as
    /// unset. The rate alone is `traceidratio`, and the argument alone replaces it. For a sampler with a ratio, the
    /// argument comes before the rate, and without either the ratio is 1.
    ///
    /// Bad values never fail: an unknown name falls back to `parentbased_always_on` (but not past a configured rate of
    /// zero: who switched export off keeps it off), a bad number is as good as none. The second part of the result has a
    /// warning for each.
    pub fn from_settings(sample_rate: Option<f64>, name: Option<&str>, argument: Option<&str>) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let set = |value: Option<&str>| value.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned);
        let (name, argument) = (set(name), set(argument));

        let argument = argument.and_then(|text| match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Some(ratio),
            _ => {
                warnings.push(format!(
                    "OTEL_TRACES_SAMPLER_ARG is \"{text}\": expected a number between 0 and 1; it is ignored"
                ));
                None
            }
        });
        let rate = sample_rate.filter(|rate| {
            let good = (0.0..=1.0).contains(rate);
            if !good {
                warnings.push(format!("sample_rate is {rate}: expected a number between 0 and 1; it is ignored"));
            }
            good
        });
        let ratio = SamplerChoice::Ratio(argument.or(rate).unwrap_or(1.0));

        let Some(name) = name else { return (Self::new(ratio, false), warnings) };
        let sampler = match name.to_ascii_lowercase().as_str() {
            "always_on" => Self::new(SamplerChoice::AlwaysOn, false),
            "always_off" => Self::new(SamplerChoice::AlwaysOff, false),
            "traceidratio" => Self::new(ratio, false),
            "parentbased_always_on" => Self::new(SamplerChoice::AlwaysOn, true),
            "parentbased_always_off" => Self::new(SamplerChoice::AlwaysOff, true),
            "parentbased_traceidratio" => Self::new(ratio, true),
            _ if rate == Some(0.0) => {
                warnings.push(format!(
                    "OTEL_TRACES_SAMPLER is \"{name}\", which is none of the samplers; sample_rate = 0.0 stays in force"
                ));
                Self::new(SamplerChoice::AlwaysOff, false)
            }
            _ => {
                warnings.push(format!(
                    "OTEL_TRACES_SAMPLER is \"{name}\", which is none of always_on, always_off, traceidratio, \
                     parentbased_always_on, parentbased_always_off, parentbased_traceidratio; parentbased_always_on is used"
                ));
                Self::new(SamplerChoice::AlwaysOn, true)
            }
        };
        (sampler, warnings)
    }

    /// Whether the trace is exported. `parent`: whether the caller was sampled, `None` without a caller.
    #[inline]
    pub fn decide(&self, trace_id: TraceId, parent: Option<bool>) -> bool {
        match parent {
            Some(sampled) if self.parent_based => sampled,
            // Bytes 8 to 15 of the id, big-endian, without their last bit: as Go; Python compares the last bit too, which
            // makes no difference for any ratio above 2^-11.
            _ => (trace_id.0 as u64) >> 1 < self.bound,
        }
    }

    /// The name that selects this sampler.
    pub fn name(&self) -> &'static str {
        match (self.choice, self.parent_based) {
            (SamplerChoice::AlwaysOn, false) => "always_on",
            (SamplerChoice::AlwaysOff, false) => "always_off",
            (SamplerChoice::Ratio(_), false) => "traceidratio",
            (SamplerChoice::AlwaysOn, true) => "parentbased_always_on",
            (SamplerChoice::AlwaysOff, true) => "parentbased_always_off",
            (SamplerChoice::Ratio(_), true) => "parentbased_traceidratio",
        }
    }

    /// The part of all roots that is sampled.
    pub fn ratio(&self) -> f64 {
        match self.choice {
            SamplerChoice::AlwaysOn => 1.0,
            SamplerChoice::AlwaysOff => 0.0,
            SamplerChoice::Ratio(ratio) => ratio,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rate: Option<f64>, name: Option<&str>, argument: Option<&str>) -> (&'static str, f64, usize) {
        let (sampler, warnings) = Sampler::from_settings(rate, name, argument);
        (sampler.name(), sampler.ratio(), warnings.len())
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
    }

    #[test]
    fn bad_values_warn_and_fall_back() {
        assert_eq!(settings(Some(0.1), Some("sometimes"), None), ("parentbased_always_on", 1.0, 1));
        assert_eq!(settings(Some(0.0), Some("sometimes"), None), ("always_off", 0.0, 1));
        for argument in ["1.5", "-0.1", "NaN", "ten"] {
            assert_eq!(settings(Some(0.1), None, Some(argument)), ("traceidratio", 0.1, 1), "{argument}");
        }
        assert_eq!(settings(Some(7.0), None, None), ("traceidratio", 1.0, 1));
    }

    #[test]
    fn a_rate_of_zero_exports_nothing_even_under_a_sampled_parent() {
        let (sampler, _) = Sampler::from_settings(Some(0.0), None, None);
        for id in [1, u128::MAX, 1 << 64] {
            assert!(!sampler.decide(TraceId(id), Some(true)));
            assert!(!sampler.decide(TraceId(id), None));
        }
    }

    #[test]
    fn a_parent_decides_only_where_it_is_asked() {
        let low = TraceId(1 << 64 | 1);
        let ratio = Sampler::new(SamplerChoice::Ratio(0.5), true);
        assert!(!ratio.decide(low, Some(false)) && ratio.decide(low, None));
        let on = Sampler::new(SamplerChoice::AlwaysOn, false);
        assert!(on.decide(low, Some(false)) && on.decide(TraceId(u128::MAX), None));
    }

    /// Python: `trace_id & (2**64 - 1) < round(rate * 2**64)`. Go: `BigEndian.Uint64(id[8:16]) >> 1 < uint64(ratio * (1 << 63))`.
    #[test]
    fn ratios_decide_by_the_low_half_as_go_and_python_do() {
        const TENTH: u64 = 1_844_674_407_370_955_264; // round(0.1 * 2**64)
        let cases = [
            (0.1, 0, true),
            (0.1, TENTH - 1, true),
            (0.1, TENTH, false),
            (0.5, 0x7fff_ffff_ffff_ffff, true),
            (0.5, 0x8000_0000_0000_0000, false),
            (0.25, 0x3fff_ffff_ffff_ffff, true),
            (0.25, 0x4000_0000_0000_0000, false),
            (0.01, 184_467_440_737_095_519, true),
            (0.01, 184_467_440_737_095_520, false),
            (1.0, u64::MAX, true),
            (0.0, 0, false),
        ];
        for (ratio, low, expected) in cases {
            let sampler = Sampler::new(SamplerChoice::Ratio(ratio), false);
            for high in [0u128, 0x4bf9_2f35_77b3_4da6, u64::MAX.into()] {
                assert_eq!(sampler.decide(TraceId(high << 64 | u128::from(low)), None), expected, "{ratio} {low:x}");
            }
        }
    }
}
