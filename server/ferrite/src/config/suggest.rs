//! "Did you mean …?" for names that are not known.

use super::{KEYS, Key};

/// The known key nearest to `unknown` (`section.name`, or what stands in its place), as a clause in
/// parentheses with a space before it; empty if none is near.
pub(super) fn key(unknown: &str) -> String {
    let name = unknown.rsplit('.').next().unwrap_or(unknown);
    let distance = |path: &str, known: &str| {
        // The right name in a wrong section counts as one mistake.
        edits(path, unknown).min(edits(known, name) + 1)
    };
    nearest(unknown, KEYS.iter().map(|key| (key.path.to_owned(), distance(key.path, key.name))))
}

/// As [`key`], among the sections.
pub(super) fn section(unknown: &str) -> String {
    let sections = KEYS.iter().map(|key| key.section);
    nearest(unknown, sections.map(|section| (section.to_owned(), edits(section, unknown))))
}

/// As [`key`], among the variables that set a key.
pub(super) fn variable(unknown: &str) -> String {
    nearest(unknown, KEYS.iter().map(|key| (key.variable(), edits(&key.variable(), unknown))))
}

/// As [`variable`], among those of another specification too.
pub(super) fn variable_among(unknown: &str, others: impl Iterator<Item = &'static str>) -> String {
    let known = KEYS.iter().map(Key::variable).chain(others.map(str::to_owned));
    nearest(unknown, known.map(|name| (name.clone(), edits(&name, unknown))))
}

fn nearest(unknown: &str, known: impl Iterator<Item = (String, usize)>) -> String {
    // A third of the letters wrong is another word.
    let near = known.filter(|(_, distance)| *distance <= (unknown.len() / 3).clamp(1, 4));
    near.min_by_key(|(_, distance)| *distance)
        .map(|(name, _)| format!(" (did you mean \"{name}\"?)"))
        .unwrap_or_default()
}

/// Letters to insert, remove or replace to make one word the other (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (n, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], n + 1);
        for (m, known) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *known);
            diagonal = row[m + 1];
            row[m + 1] = replaced.min(diagonal + 1).min(row[m] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("same", "same"), 0);
    }

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        assert!(key("storage.mutable_regoin_size_mb").contains("\"storage.mutable_region_size_mb\""));
        assert!(key("server.dir").contains("\"storage.dir\""));
        assert!(section("telemtry").contains("\"telemetry\""));
        assert!(variable("FERRITE_SERVER__PROT").contains("\"FERRITE_SERVER__PORT\""));
        assert_eq!(key("server.zzzzzzz"), "");
    }
}
