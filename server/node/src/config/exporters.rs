//! Where a signal goes: `otlp`, `console`, both, or `none`.

use std::fmt;

const OTLP: &str = "otlp";
const CONSOLE: &str = "console";
const NONE: &str = "none";

/// What `OTEL_TRACES_EXPORTER` and its like name while telemetry is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exporters {
    /// A backend.
    pub otlp: bool,
    /// Standard output, as lines of JSON.
    pub console: bool,
}

impl Exporters {
    /// What is used if nothing is said.
    pub const DEFAULT: Self = Self { otlp: true, console: false };

    /// Names with commas between them, in any case; `none` stands alone. `None`: one of them is unknown, or there is none.
    pub fn of_names(list: &str) -> Option<Self> {
        let names: Vec<String> = list.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
        if names == [NONE] {
            return Some(Self { otlp: false, console: false });
        }
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        let all_known = names.iter().all(|name| name == OTLP || name == CONSOLE);
        all_known.then(|| Self { otlp: has(OTLP), console: has(CONSOLE) })
    }

    /// Whether the signal leaves this process at all.
    pub fn any(self) -> bool {
        self.otlp || self.console
    }
}

impl fmt::Display for Exporters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.otlp, self.console) {
            (true, true) => write!(f, "{OTLP},{CONSOLE}"),
            (true, false) => f.write_str(OTLP),
            (false, true) => f.write_str(CONSOLE),
            (false, false) => f.write_str(NONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for otlp in [false, true] {
            for console in [false, true] {
                let exporters = Exporters { otlp, console };
                assert_eq!(Exporters::of_names(&exporters.to_string()), Some(exporters));
                assert_eq!(exporters.any(), otlp || console);
            }
        }
        assert_eq!(Exporters::of_names(" Console , OTLP"), Some(Exporters { otlp: true, console: true }));
        for wrong in ["", "otlp,", "none,otlp", "zipkin", "otlp,none"] {
            assert_eq!(Exporters::of_names(wrong), None, "{wrong}");
        }
    }
}
