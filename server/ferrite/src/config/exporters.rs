//! The kind of a list of exporters.

use ferrite_node::config::Exporters;
use toml_edit::Value;

use super::kinds::{Given, Kind};

/// `otlp`, `console`, both, or `none`: a text, or a list in the file.
pub struct ExporterList;

impl Kind for ExporterList {
    type Of = Exporters;

    fn expects() -> String {
        "\"otlp\", \"console\", \"otlp,console\" or \"none\"".to_owned()
    }

    fn read(given: &Given) -> Option<Exporters> {
        match given {
            Given::Text(text) | Given::String(text) => Exporters::of_names(text),
            Given::List(items) => {
                let names: Option<Vec<&str>> = items
                    .iter()
                    .map(|item| match item {
                        Given::String(name) if !name.contains(',') => Some(name.as_str()),
                        _ => None,
                    })
                    .collect();
                Exporters::of_names(&names?.join(","))
            }
            _ => None,
        }
    }

    fn write(value: &Exporters) -> Value {
        value.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_a_text_says() {
        let text = |text: &str| Given::String(text.to_owned());
        let both = Some(Exporters { otlp: true, console: true });
        assert_eq!(ExporterList::read(&text("otlp,console")), both);
        assert_eq!(ExporterList::read(&Given::List(vec![text("console"), text("otlp")])), both);
        assert_eq!(ExporterList::read(&Given::List(vec![text("otlp,console")])), None);
        assert_eq!(ExporterList::read(&Given::List(Vec::new())), None);
        assert_eq!(ExporterList::read(&Given::Bool(true)), None);
    }
}
