//! A line of the page's lists: what is asked for, and what is told of a trace.

use ferrite_commands::{Searched, TracesWanted};
use ferrite_telemetry::{Attribute, KeptTrace, Shape, Span, SpanName, Status, Tier, TraceFilter, Value};
use serde_json::{Value as Json, json};

/// Lines without a word about how many, and at most.
const LINES_DEFAULT: usize = 100;
const LINES_MAX: usize = 1000;

/// The address's query. What is empty is not asked for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Listing {
    /// `recent`, `slow` or `failed`.
    view: String,
    cmd: String,
    key: String,
    tier: String,
    tenant: String,
    client: String,
    /// Milliseconds.
    min: String,
    limit: String,
}

impl Listing {
    /// Reads `name=value&…`; names that are not known are passed over, as browsers and proxies may add some.
    pub fn read(query: &str) -> Self {
        let mut listing = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let part = match &*name {
                "view" => &mut listing.view,
                "cmd" => &mut listing.cmd,
                "key" => &mut listing.key,
                "tier" => &mut listing.tier,
                "tenant" => &mut listing.tenant,
                "client" => &mut listing.client,
                "min" => &mut listing.min,
                "limit" => &mut listing.limit,
                _ => continue,
            };
            *part = value.into_owned();
        }
        listing
    }

    /// What is to be searched for, or what is wrong. `slow_ns`: what is slow if nothing else is said.
    pub fn wanted(self, slow_ns: u64) -> Result<TracesWanted, &'static str> {
        let given = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let connection = given(self.client).map(|id| id.parse()).transpose();
        let min_ms = given(self.min).map(|ms| ms.parse::<f64>()).transpose();
        let min_ms = min_ms.ok().filter(|ms| ms.is_none_or(|ms| ms.is_finite() && ms >= 0.0));
        let min_ms = min_ms.ok_or("The least duration is a number of milliseconds.")?;
        let tier = given(self.tier).map(|name| Tier::ALL.iter().find(|tier| tier.as_str() == name).ok_or(()));
        let filter = TraceFilter {
            command: given(self.cmd).map(|name| name.to_uppercase()),
            // A blank may be a part of a key.
            keys: Some(self.key.into_bytes()).filter(|key| !key.is_empty()).into_iter().collect(),
            connection: connection.map_err(|_| "A client id is a number.")?,
            duration_min_ns: match min_ms {
                Some(ms) => (ms * 1e6) as u64,
                None if self.view == "slow" => slow_ns,
                None => 0,
            },
            failed: self.view == "failed",
            tier: tier.transpose().map_err(|()| "A tier is mutable, read_only or disk.")?.copied(),
            baggage: None,
        };
        let limit = given(self.limit).map(|limit| limit.parse()).transpose();
        let limit: Option<usize> = limit.map_err(|_| "The limit is a number of traces.")?;
        let count = limit.unwrap_or(LINES_DEFAULT).clamp(1, LINES_MAX);
        Ok(TracesWanted::Search(Searched { filter, tenant: given(self.tenant), count }))
    }
}

/// A trace in a list.
pub(crate) fn listed(trace: &KeptTrace, shape: &Shape) -> Json {
    let mut tiers: Vec<&str> = Vec::new();
    let mut root = None;
    for span in trace.spans() {
        let told = tier_of(&span).filter(|tier| !tiers.contains(tier));
        tiers.extend(told);
        root.get_or_insert_with(|| shape.apply(&span));
    }
    let root = root.expect("a trace has a root");
    let statement = [Attribute::DbStatement, Attribute::DbQueryText].into_iter().find_map(|key| root.attribute(key));
    let connection = root.attribute(Attribute::ConnectionId);
    json!({
        "trace_id": trace.trace_id().to_string(),
        "root_id": trace.root_id().to_string(),
        "statement": statement.map_or_else(|| root.name.as_str().to_owned(), Value::to_string),
        "is_command": root.name == SpanName::Command,
        "tiers": tiers,
        "duration_ns": root.end_ns - root.start_ns,
        "execution_ns": trace.execution_ns(),
        "start_unix_ns": root.start_ns.wrapping_add_signed(trace.wall_offset_ns()),
        "error": match &root.status { Status::Error(text) => Some(text), Status::Unset => None },
        "sampled": trace.sampled(),
        "connection": connection.map(Value::to_string),
        "spans": trace.span_count(),
    })
}

/// Where this span found or wrote a value.
fn tier_of(span: &Span) -> Option<&'static str> {
    let Some(Value::Str(name)) = span.attribute(Attribute::StorageTier) else { return None };
    let tier = Tier::ALL.iter().find(|tier| tier.as_str() == name)?;
    (*tier == Tier::Disk || span.attribute(Attribute::StorageBytes).is_some()).then_some(tier.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(listing: Listing) -> Searched {
        match listing.wanted(10_000_000).expect("it is right") {
            TracesWanted::Search(searched) => searched,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_left_empty_is_not_asked_for() {
        assert_eq!(search(Listing::default()), Searched { filter: TraceFilter::default(), tenant: None, count: 100 });
        let slow = search(Listing::read("view=slow&limit=1000000&utm=x"));
        assert_eq!((slow.filter.duration_min_ns, slow.count), (10_000_000, LINES_MAX));
        let text = str::to_owned;
        let all = search(Listing::read("view=failed&cmd=+get&key=%20a+b&tier=disk&tenant=acme&client=7&min=0.5"));
        let filter = TraceFilter {
            command: Some(text("GET")),
            keys: vec![b" a b".to_vec()],
            connection: Some(7),
            duration_min_ns: 500_000,
            failed: true,
            tier: Some(Tier::Disk),
            baggage: None,
        };
        assert_eq!(all, Searched { filter, tenant: Some(text("acme")), count: 100 });
    }

    #[test]
    fn mistakes_are_told() {
        for (query, part) in [
            ("tier=tape", "A tier"),
            ("client=me", "A client id"),
            ("min=-1", "The least duration"),
            ("min=soon", "The least duration"),
            ("limit=all", "The limit"),
        ] {
            assert!(Listing::read(query).wanted(0).expect_err("it is wrong").starts_with(part), "{query}");
        }
    }
}
