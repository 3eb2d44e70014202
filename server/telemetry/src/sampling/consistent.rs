//! Consistent probability sampling: who samples at a higher rate keeps all that others keep at a lower one, and the rate can be
//! told from the trace (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>).
//!
//! A trace has 56 bits of randomness, R: those of its id, or of `rv` in the `ot` member of its tracestate. A ratio has a
//! threshold T; the trace is sampled if R ≥ T, and says so as `th`.

use crate::context::TRACESTATE_MEMBERS_MAX;

/// 2^56.
const RANGE: u64 = 1 << 56;
/// Digits of a threshold that count, those in front that are `f` aside: the specification's recommendation.
const PRECISION: u32 = 4;
/// Of the `ot` member's value.
const VALUE_BYTES_MAX: usize = 256;

/// The threshold of a ratio; `None` for one too small to be told.
pub(super) fn threshold(ratio: f64) -> Option<u64> {
    let kept = (ratio.clamp(0.0, 1.0) * RANGE as f64).round() as u64;
    if kept == 0 {
        return None;
    }
    let threshold = RANGE - kept;
    // Rounded to the digits that are told, so that what is told is what was done.
    let leading_f = (!(threshold << 8)).leading_zeros() / 4;
    let digits = (leading_f + PRECISION).min(14);
    let unit = 1u64 << (4 * (14 - digits));
    let rounded = threshold.saturating_add(unit / 2) / unit * unit;
    Some(if rounded >= RANGE { threshold } else { rounded })
}

/// R: of the tracestate if it says so, else of the trace id.
pub(super) fn randomness(trace_id: u128, tracestate: &str) -> u64 {
    let told = sub_value(ot(tracestate).unwrap_or_default(), "rv");
    let told = told.filter(|text| text.len() == 14).and_then(lower_hex);
    told.unwrap_or(trace_id as u64 & (RANGE - 1))
}

/// The tracestate with this threshold in its `ot` member, which comes first as what was changed last; `None`: without any.
pub(super) fn with_threshold(tracestate: &str, threshold: Option<u64>) -> String {
    let others = ot(tracestate).into_iter().flat_map(|value| value.split(';')).filter(|pair| !pair.starts_with("th:"));
    let mut value = String::new();
    if let Some(threshold) = threshold {
        let digits = format!("{threshold:014x}");
        let digits = digits.trim_end_matches('0');
        value = format!("th:{}", if digits.is_empty() { "0" } else { digits });
    }
    for pair in others.filter(|pair| !pair.is_empty()) {
        if value.len() + pair.len() < VALUE_BYTES_MAX {
            if !value.is_empty() {
                value.push(';');
            }
            value.push_str(pair);
        }
    }
    let mut members = Vec::new();
    if !value.is_empty() {
        members.push(format!("ot={value}"));
    }
    members.extend(members_of(tracestate).filter(|member| !member.starts_with("ot=")).map(str::to_owned));
    // Which was changed longest ago goes (Trace Context, section 3.3.1.5).
    members.truncate(TRACESTATE_MEMBERS_MAX);
    members.join(",")
}

fn members_of(tracestate: &str) -> impl Iterator<Item = &str> {
    tracestate.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty())
}

fn ot(tracestate: &str) -> Option<&str> {
    members_of(tracestate).find_map(|member| member.strip_prefix("ot="))
}

fn sub_value<'a>(value: &'a str, key: &str) -> Option<&'a str> {
    value.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix(':'))
}

fn lower_hex(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(ratio: f64) -> String {
        with_threshold("", threshold(ratio))
    }

    /// The specification's table of probabilities and thresholds, section "Explanation".
    #[test]
    fn thresholds_as_the_specification_writes_them() {
        assert_eq!(told(1.0), "ot=th:0");
        assert_eq!(told(0.5), "ot=th:8");
        assert_eq!(told(0.25), "ot=th:c");
        assert_eq!(told(0.1), "ot=th:e666");
        assert_eq!(told(0.01), "ot=th:fd70a");
        assert_eq!(told(1.0 / 3.0), "ot=th:aaab");
        assert_eq!(told(1.0 / 128.0), "ot=th:fe");
        assert_eq!(told(1.0 / 65536.0), "ot=th:ffff");
        assert_eq!((threshold(0.0), threshold(1e-18)), (None, None));
        assert_eq!(told(2f64.powi(-56)), "ot=th:ffffffffffffff");
    }

    #[test]
    fn randomness_is_the_caller_s_or_the_id_s() {
        let id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
        assert_eq!(randomness(id, ""), 0xce_929d_0e0e_4736);
        assert_eq!(randomness(id, "a=b, ot=th:8;rv:9b8233f7e3a151 "), 0x9b_8233_f7e3_a151);
        for unusable in ["ot=rv:9b8233f7e3a15", "ot=rv:9B8233f7e3a151", "ot=rw:9b8233f7e3a151", "x=rv:9b8233f7e3a151"] {
            assert_eq!(randomness(id, unusable), 0xce_929d_0e0e_4736, "{unusable}");
        }
    }

    #[test]
    fn the_member_is_changed_and_comes_first() {
        let state = "a=1,ot=th:c;rv:9b8233f7e3a151;x:y , b=2";
        assert_eq!(with_threshold(state, threshold(0.5)), "ot=th:8;rv:9b8233f7e3a151;x:y,a=1,b=2");
        assert_eq!(with_threshold(state, None), "ot=rv:9b8233f7e3a151;x:y,a=1,b=2");
        let full = (0..32).map(|n| format!("k{n}=v")).collect::<Vec<_>>();
        let expected = format!("ot=th:8,{}", full[..31].join(","));
        assert_eq!(with_threshold(&full.join(","), threshold(0.5)), expected);
        assert_eq!(with_threshold(&full.join(","), None), full.join(","));
        assert_eq!(with_threshold("ot=th:c", None), "");
        assert_eq!(with_threshold("", None), "");
    }

    proptest! {
        #[test]
        fn a_threshold_keeps_what_its_ratio_says(ratio in 1e-6f64..=1.0) {
            let threshold = threshold(ratio).expect("large enough");
            let kept = (RANGE - threshold) as f64 / RANGE as f64;
            // Four digits after the leading `f` are at least three good ones of what is left.
            prop_assert!((kept / ratio - 1.0).abs() < 1.0 / 4096.0, "{} {}", kept, ratio);
        }

        #[test]
        fn higher_rates_keep_all_that_lower_ones_keep(low in 0.0001f64..1.0, more in 0.0f64..1.0, r in 0..RANGE) {
            let high = low + (1.0 - low) * more;
            let keeps = |ratio| threshold(ratio).is_some_and(|threshold| r >= threshold);
            prop_assert!(!keeps(low) || keeps(high));
        }

        #[test]
        fn any_tracestate_goes_in(state in "[ -~]{0,80}", ratio in 0.0f64..=1.0) {
            let written = with_threshold(&state, threshold(ratio));
            prop_assert_eq!(with_threshold(&written, threshold(ratio)), written);
        }
    }
}
