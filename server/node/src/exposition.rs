//! The formats of `/metrics`, and which of them a scraper would rather have (RFC 9110, section 12.5.1).

/// A format in which metrics can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposition {
    /// The classic text format, 0.0.4.
    Classic,
    OpenMetrics,
    /// Prometheus's messages, each behind its length: the only one that has native histograms.
    Protobuf,
}

const OPENMETRICS: &str = "application/openmetrics-text";
const PROTOBUF: &str = "application/vnd.google.protobuf";
/// What a range that asks for it may say of its messages.
const MESSAGES: [(&str, &str); 2] = [("proto", "io.prometheus.client.metricfamily"), ("encoding", "delimited")];

impl Exposition {
    /// What an `Accept` header asks for; without a word the classic format. Protobuf is only offered `with_native` histograms, for which
    /// it is there.
    pub(crate) fn chosen(accept: &str, with_native: bool) -> Self {
        let accept = accept.to_ascii_lowercase();
        let ranges = || accept.split(',').filter_map(Range::read);
        let quality_of =
            |is_it: fn(&Range<'_>) -> bool| ranges().filter(is_it).map(|range| range.quality).fold(0.0, f64::max);
        let classic = quality_of(|range| range.kind == "text/plain");
        let openmetrics = quality_of(|range| range.kind == OPENMETRICS);
        let protobuf = if with_native { quality_of(|range| range.is_protobuf()) } else { 0.0 };
        if protobuf > 0.0 && protobuf >= openmetrics.max(classic) {
            Self::Protobuf
        } else if openmetrics > 0.0 && openmetrics >= classic {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// One media range of the header, in lower case.
struct Range<'a> {
    kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f64,
}

impl<'a> Range<'a> {
    /// None if its quality is no number.
    fn read(range: &'a str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
        let quality = parameters.iter().find(|(name, _)| *name == "q");
        let quality = quality.map_or(Some(1.0), |(_, quality)| quality.parse::<f64>().ok())?;
        Some(Self { kind, parameters, quality })
    }

    fn is_protobuf(&self) -> bool {
        let says = |name: &str| self.parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        // What it does not say, it leaves to us.
        self.kind == PROTOBUF && MESSAGES.iter().all(|(name, value)| says(name).is_none_or(|said| said == *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scraper_chooses_the_format() {
        for (accept, openmetrics) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", true),
            ("application/openmetrics-text;q=0", false),
            ("text/plain;version=0.0.4, application/openmetrics-text;q=0.5", false),
            // A Prometheus of today.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                true,
            ),
        ] {
            let expected = if openmetrics { Exposition::OpenMetrics } else { Exposition::Classic };
            assert_eq!(Exposition::chosen(accept, false), expected, "{accept}");
            assert_eq!(Exposition::chosen(accept, true), expected, "{accept}");
        }
    }

    #[test]
    fn protobuf_is_for_who_asks_for_it_where_there_are_native_histograms() {
        /// A Prometheus of today that scrapes native histograms.
        const PROMETHEUS: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                                  encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,\
                                  text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (PROMETHEUS, Exposition::Protobuf),
            ("application/vnd.google.protobuf", Exposition::Protobuf),
            ("application/vnd.google.protobuf;encoding=text", Exposition::Classic),
            ("application/vnd.google.protobuf;proto=some.other.Message", Exposition::Classic),
            ("application/vnd.google.protobuf;q=0", Exposition::Classic),
            ("application/vnd.google.protobuf;q=0.1,text/plain;q=0.2", Exposition::Classic),
            ("application/vnd.google.protobuf;q=0.1,application/openmetrics-text", Exposition::OpenMetrics),
        ] {
            assert_eq!(Exposition::chosen(accept, true), format, "{accept}");
            assert_ne!(Exposition::chosen(accept, false), Exposition::Protobuf, "{accept}");
        }
        assert_eq!(Exposition::chosen(PROMETHEUS, false), Exposition::OpenMetrics);
    }
}
