//! The configuration file: TOML, every mistake named with its line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use ferrite_node::config::Config;
use toml_edit::{Document, Item, TableLike, Value};

use super::kinds::Given;
use super::{KEYS, Key, Problem, suggest};

/// Applies a file's `text`. `environment` is what `${VAR}` names.
pub(super) fn apply(
    path: &Path,
    text: &str,
    environment: &[(String, String)],
    config: &mut Config,
    problems: &mut Vec<Problem>,
) {
    // Editors of some systems begin a file with a byte order mark; it is no part of the TOML.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let at = |span: Option<Range<usize>>, message: String| {
        let line = 1 + text[..span.map_or(0, |span| span.start.min(text.len()))].matches('\n').count();
        Problem::new(format!("{}:{line}", path.display()), message)
    };
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => return problems.push(at(error.span(), error.message().to_owned())),
    };
    for (section, item) in document.iter() {
        let section_span = || document.as_table().key(section).and_then(|key| key.span()).or(item.span());
        if !KEYS.iter().any(|key| key.section == section) {
            let message = match item.as_table_like() {
                Some(_) => format!("unknown section \"{section}\"{}", suggest::section(section)),
                None => format!("unknown key \"{section}\"{}", suggest::key(section)),
            };
            problems.push(at(section_span(), message));
            continue;
        }
        let Some(keys) = item.as_table_like() else {
            problems.push(at(section_span(), format!("{section}: expected a section, as in [{section}]")));
            continue;
        };
        apply_section(section, keys, environment, config, &mut |span, message| problems.push(at(span, message)));
    }
}

fn apply_section(
    section: &str,
    keys: &dyn TableLike,
    environment: &[(String, String)],
    config: &mut Config,
    problem: &mut dyn FnMut(Option<Range<usize>>, String),
) {
    for (name, item) in keys.iter() {
        let path = format!("{section}.{name}");
        if let Some(part) = item.as_table_like()
            && KEYS.iter().any(|key| key.section == path)
        {
            apply_section(&path, part, environment, config, problem);
            continue;
        }
        let span = keys.key(name).and_then(|key| key.span()).or(item.span());
        let applied = match Key::of(section, name) {
            None => Err(format!("unknown key \"{path}\"{}", suggest::key(&path))),
            Some(key) => given(item)
                .and_then(|given| expanded(given, environment))
                .and_then(|given| key.apply(config, &given))
                .map_err(|message| format!("{path}: {message}")),
        };
        if let Err(message) = applied {
            // A value may begin some lines below its key.
            let value_span = if Key::of(section, name).is_some() { item.span() } else { None };
            problem(value_span.or(span), message);
        }
    }
}

/// The value of an item. A table is one of texts; dotted names in it need no quotes.
pub(super) fn given(item: &Item) -> Result<Given, String> {
    if let Some(table) = item.as_table_like() {
        let mut pairs = BTreeMap::new();
        flatten("", table, &mut pairs)?;
        return Ok(Given::Pairs(pairs));
    }
    Ok(item.as_value().map_or(Given::Other("an array of tables"), scalar))
}

fn scalar(value: &Value) -> Given {
    match value {
        Value::String(text) => Given::String(text.value().clone()),
        Value::Integer(number) => Given::Integer(*number.value()),
        Value::Float(number) => Given::Float(*number.value()),
        Value::Boolean(value) => Given::Bool(*value.value()),
        Value::Array(items) => Given::List(items.iter().map(scalar).collect()),
        Value::Datetime(_) => Given::Other("a date"),
        Value::InlineTable(_) => Given::Other("a table"),
    }
}

fn flatten(prefix: &str, table: &dyn TableLike, pairs: &mut BTreeMap<String, String>) -> Result<(), String> {
    for (name, item) in table.iter() {
        let name = format!("{prefix}{name}");
        if let Some(inner) = item.as_table_like() {
            flatten(&format!("{name}."), inner, pairs)?;
            continue;
        }
        let text = match item.as_value().map(scalar) {
            Some(Given::String(text)) => text,
            Some(given @ (Given::Integer(_) | Given::Float(_) | Given::Bool(_))) => given.to_string(),
            _ => return Err(format!("{name:?}: expected a text")),
        };
        pairs.insert(name, text);
    }
    Ok(())
}

/// Replaces `${VAR}` in a table's texts; `$${` stands for `${`.
fn expanded(given: Given, environment: &[(String, String)]) -> Result<Given, String> {
    let Given::Pairs(mut pairs) = given else {
        return Ok(given);
    };
    for (name, text) in &mut pairs {
        let mut result = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                result.push_str(&rest[..start]);
                result.push('{');
                rest = &rest[start + 2..];
                continue;
            }
            result.push_str(&rest[..start]);
            let Some(length) = rest[start..].find('}') else {
                return Err(format!("{name:?}: \"${{\" without \"}}\""));
            };
            let variable = &rest[start + 2..start + length];
            let Some((_, value)) = environment.iter().find(|(known, _)| known == variable) else {
                return Err(format!("{name:?}: the environment variable {variable} is not set"));
            };
            result.push_str(value);
            rest = &rest[start + length + 1..];
        }
        result.push_str(rest);
        *text = result;
    }
    Ok(Given::Pairs(pairs))
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use ferrite_node::config::{AppendFsync, Config, OtlpProtocol, SpanDetail};

    fn problem(text: &str) -> String {
        load(text, &[], &[]).unwrap_err()
    }

    #[test]
    fn the_full_reference_of_telemetry_is_read() {
        let text = r#"
[telemetry]
enabled = true
endpoint = "http://collector:4317"
protocol = "http"
service_name = "cache"
service_version = "2.0.0"
service_namespace = "production"
sample_rate = 0.1
traces_enabled = true
metrics_enabled = false
logs_enabled = false
metrics_export_interval = 30
batch_size = 256
batch_timeout_ms = 1000
span_detail = "storage"

[telemetry.resource_attributes]
"deployment.environment" = "production"
host.name = "ferrite-prod-01"

[telemetry.headers]
"Authorization" = "Bearer ${OTEL_AUTH_TOKEN}"
"#;
        let loaded = load(text, &[("OTEL_AUTH_TOKEN", "s3cret")], &[]).unwrap();
        let telemetry = loaded.config.telemetry;
        assert!(telemetry.enabled && telemetry.traces_enabled && !telemetry.metrics_enabled);
        assert_eq!(telemetry.protocol, OtlpProtocol::Http);
        assert_eq!(telemetry.service_namespace.as_deref(), Some("production"));
        assert_eq!((telemetry.sample_rate, telemetry.metrics_export_interval), (0.1, 30.0));
        assert_eq!(telemetry.span_detail, SpanDetail::Storage);
        assert_eq!(telemetry.resource_attributes["deployment.environment"], "production");
        assert_eq!(telemetry.resource_attributes["host.name"], "ferrite-prod-01");
        assert_eq!(telemetry.headers["authorization"], "Bearer s3cret");
    }

    #[test]
    fn an_empty_file_and_inline_sections_are_read() {
        assert_eq!(load("", &[], &[]).unwrap().config, Config::default());
        let config = load("aof = { appendfsync = \"always\" }\nserver.bind = \"::1\"\n", &[], &[]).unwrap().config;
        assert_eq!(config.aof.appendfsync, AppendFsync::Always);
        assert_eq!(config.server.bind.len(), 1);
    }

    #[test]
    fn an_unknown_name_is_named_with_its_line() {
        assert_eq!(
            problem("[server]\nport = 1\n\n# regions\n[storage]\n\nmutable_regoin_size_mb = 1\n"),
            "ferrite.toml:7: unknown key \"storage.mutable_regoin_size_mb\" \
             (did you mean \"storage.mutable_region_size_mb\"?)"
        );
        assert_eq!(
            problem("[sever]\nport = 1\n"),
            "ferrite.toml:1: unknown section \"sever\" (did you mean \"server\"?)"
        );
        assert_eq!(problem("\nport = 1\n"), "ferrite.toml:2: unknown key \"port\" (did you mean \"server.port\"?)");
        assert_eq!(problem("server = 1\n"), "ferrite.toml:1: server: expected a section, as in [server]");
    }

    #[test]
    fn a_bad_value_is_named_with_its_line() {
        assert_eq!(
            problem("[telemetry]\n\nenabled = true\nsample_rate = \"lots\"\n"),
            "ferrite.toml:4: telemetry.sample_rate: expected a number from 0.0 to 1.0, found \"lots\""
        );
        assert_eq!(
            problem("[aof]\nappendfsync = true\nenabled = 1\n"),
            "ferrite.toml:2: aof.appendfsync: expected \"always\", \"everysec\" or \"no\", found true\n\
             ferrite.toml:3: aof.enabled: expected true or false, found 1"
        );
        assert_eq!(
            problem("[server]\nport = { number = 1 }\n"),
            "ferrite.toml:2: server.port: expected a whole number from 0 to 65535, found a table"
        );
    }

    #[test]
    fn a_mistake_in_the_toml_is_named_with_its_line() {
        let message = problem("[server]\nport = 1\nport = 2\n");
        assert!(message.starts_with("ferrite.toml:3: duplicate key"), "{message}");
        let message = problem("[server]\n\nport = \n");
        assert!(message.starts_with("ferrite.toml:3: "), "{message}");
    }

    #[test]
    fn variables_in_headers_must_be_set_and_can_be_escaped() {
        let header = |text: &str| {
            let text = format!("[telemetry.headers]\nkey = \"{text}\"\n");
            let loaded = load(&text, &[("ONE", "1"), ("TWO", "2")], &[])?;
            Ok::<_, String>(loaded.config.telemetry.headers["key"].clone())
        };
        assert_eq!(header("${ONE}-${TWO}$").unwrap(), "1-2$");
        assert_eq!(header("$${ONE} $5").unwrap(), "${ONE} $5");
        let unset = header("${THREE}").unwrap_err();
        assert!(unset.contains("telemetry.headers: \"key\": the environment variable THREE is not set"), "{unset}");
        assert!(header("${ONE").unwrap_err().contains("without \"}\""));
    }
}
