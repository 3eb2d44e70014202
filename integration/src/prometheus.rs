//! A page in Prometheus's text format (0.0.4), read strictly: what a scraper would stumble over is an error here.

use std::collections::{BTreeMap, BTreeSet};

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// The page's samples in their order, or the first line that is not as it should be.
pub fn parse(page: &str) -> Result<Vec<Sample>, String> {
    if !page.is_empty() && !page.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let mut families = Families::default();
    let mut samples = Vec::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        let refuse = |reason: &str| format!("{reason}: {line}");
        match line.strip_prefix("# ") {
            Some(comment) => families.open(comment).map_err(refuse)?,
            None => {
                let sample = sample(line).ok_or_else(|| refuse("not a sample"))?;
                families.holds(&sample.name).map_err(refuse)?;
                samples.push(sample);
            }
        }
    }
    let mut series = BTreeSet::new();
    match samples.iter().find(|sample| !series.insert((&sample.name, &sample.labels))) {
        Some(twice) => Err(format!("twice: {} {:?}", twice.name, twice.labels)),
        None => Ok(samples),
    }
}

/// The sum of all series of this name.
pub fn sum(samples: &[Sample], name: &str) -> f64 {
    samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
}

/// The metrics that were declared so far; the last one is open.
#[derive(Default)]
struct Families {
    seen: BTreeSet<String>,
    name: String,
    kind: String,
}

impl Families {
    /// `HELP <name> <text>` or `TYPE <name> <kind>`; anything else is a remark.
    fn open(&mut self, comment: &str) -> Result<(), &'static str> {
        let mut words = comment.splitn(3, ' ');
        let (word, name, rest) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match word {
            Some("HELP") if !self.seen.insert(name.to_owned()) => return Err("declared twice"),
            Some("HELP") => self.kind.clear(),
            Some("TYPE") if name != self.name => return Err("no HELP before it"),
            Some("TYPE") if !["counter", "gauge", "histogram", "summary", "untyped"].contains(&rest) => {
                return Err("no such type");
            }
            Some("TYPE") => rest.clone_into(&mut self.kind),
            _ => return Ok(()),
        }
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// A sample stands below its own metric's declaration.
    fn holds(&self, name: &str) -> Result<(), &'static str> {
        let of_this = match name.strip_prefix(self.name.as_str()) {
            Some("") => !self.kind.is_empty() && self.kind != "histogram",
            Some("_bucket" | "_sum" | "_count") => self.kind == "histogram",
            _ => false,
        };
        if of_this { Ok(()) } else { Err("not below its metric's declaration") }
    }
}

/// `name{label="value",…} value`
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = match after.strip_prefix(',') {
                Some(more) => more,
                None => break rest = after.strip_prefix('}')?,
            };
        }
    }
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    is_name(name).then(|| Sample { name: name.to_owned(), labels, value })
}

/// The text up to its closing quotation mark, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other @ ('"' | '\\') => other,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "_:".contains(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP a_total Things, labeled by kind
# TYPE a_total counter
a_total{kind=\"x \\\"y\\\"\",db=\"0\"} 2
a_total 3
# HELP b How long
# TYPE b histogram
b_bucket{le=\"0.5\"} 1
b_bucket{le=\"+Inf\"} 4
b_sum 1.5
b_count 4
# HELP a_total_more Others
# TYPE a_total_more gauge
a_total_more 100
";

    #[test]
    fn a_page_is_read() {
        let samples = parse(PAGE).expect("a healthy page");
        assert_eq!(samples.len(), 7);
        assert_eq!(samples[0].labels["kind"], "x \"y\"");
        assert_eq!(samples[0].labels["db"], "0");
        assert_eq!(sum(&samples, "a_total"), 5.0);
        assert_eq!(sum(&samples, "c_total"), 0.0);
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn a_damaged_page_is_refused() {
        for (whole, broken) in [
            ("a_total 3\n", "a_total three\n"),
            ("a_total 3\n", "a_total  3\n"),
            ("a_total 3\n", "a-total 3\n"),
            ("a_total 3\n", "a_total{kind=x} 3\n"),
            ("a_total 3\n", "a_total{kind=\"x} 3\n"),
            ("a_total 3\n", "a_total{db=\"0\",kind=\"x \\\"y\\\"\"} 3\n"),
            ("# TYPE a_total counter\n", ""),
            ("# TYPE a_total counter\n", "# TYPE a_total count\n"),
            ("# HELP b How long\n", ""),
            ("# HELP b How long\n", "# HELP a_total Again\n"),
            ("b_sum 1.5\n", "b 1.5\n"),
            ("a_total_more 100\n", "a_total_more 100"),
        ] {
            let page = PAGE.replace(whole, broken);
            assert_ne!(page, PAGE);
            assert!(parse(&page).is_err(), "{page}");
        }
    }
}
