//! The environment: OpenTelemetry's variables, `RUST_LOG`, and `FERRITE_<SECTION>__<KEY>` for every key.

use ferrite_node::config::Config;

use super::kinds::Given;
use super::{Key, Problem, service, suggest};

/// A variable that a specification names, and the key that it sets.
struct Standard {
    variable: &'static str,
    section: &'static str,
    key: &'static str,
    /// Turns its text into the key's.
    convert: fn(&str) -> String,
}

const fn telemetry(variable: &'static str, key: &'static str) -> Standard {
    Standard { variable, section: "telemetry", key, convert: str::to_owned }
}

const fn limit(variable: &'static str, key: &'static str) -> Standard {
    Standard { variable, section: "telemetry.limits", key, convert: str::to_owned }
}

const fn log_limit(variable: &'static str, key: &'static str) -> Standard {
    Standard { variable, section: "telemetry.log_limits", key, convert: str::to_owned }
}

const fn signal(variable: &'static str, section: &'static str, key: &'static str) -> Standard {
    Standard { variable, section, key, convert: str::to_owned }
}

const STANDARD: &[Standard] = &[
    // The general limits first: a span's own go over them.
    limit("OTEL_ATTRIBUTE_COUNT_LIMIT", "attribute_count"),
    limit("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "attribute_value_length"),
    log_limit("OTEL_ATTRIBUTE_COUNT_LIMIT", "attribute_count"),
    log_limit("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "attribute_value_length"),
    log_limit("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "attribute_count"),
    log_limit("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "attribute_value_length"),
    limit("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "attribute_count"),
    limit("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "attribute_value_length"),
    limit("OTEL_SPAN_EVENT_COUNT_LIMIT", "event_count"),
    limit("OTEL_SPAN_LINK_COUNT_LIMIT", "link_count"),
    limit("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "event_attribute_count"),
    telemetry("OTEL_SEMCONV_STABILITY_OPT_IN", "semconv_stability_opt_in"),
    telemetry("OTEL_EXPORTER_OTLP_ENDPOINT", "endpoint"),
    telemetry("OTEL_EXPORTER_OTLP_PROTOCOL", "protocol"),
    telemetry("OTEL_EXPORTER_OTLP_HEADERS", "headers"),
    telemetry("OTEL_EXPORTER_OTLP_TIMEOUT", "export_timeout_ms"),
    telemetry("OTEL_EXPORTER_OTLP_COMPRESSION", "compression"),
    telemetry("OTEL_EXPORTER_OTLP_INSECURE", "insecure"),
    telemetry("OTEL_EXPORTER_OTLP_CERTIFICATE", "certificate"),
    telemetry("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "client_certificate"),
    telemetry("OTEL_EXPORTER_OTLP_CLIENT_KEY", "client_key"),
    signal("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "telemetry.traces", "endpoint"),
    signal("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "telemetry.traces", "protocol"),
    signal("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "telemetry.traces", "headers"),
    signal("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "telemetry.traces", "timeout_ms"),
    signal("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "telemetry.traces", "compression"),
    signal("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "telemetry.traces", "insecure"),
    signal("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "telemetry.traces", "certificate"),
    signal("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "telemetry.traces", "client_certificate"),
    signal("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "telemetry.traces", "client_key"),
    signal("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "telemetry.metrics", "endpoint"),
    signal("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "telemetry.metrics", "protocol"),
    signal("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "telemetry.metrics", "headers"),
    signal("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "telemetry.metrics", "timeout_ms"),
    signal("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "telemetry.metrics", "compression"),
    signal("OTEL_EXPORTER_OTLP_METRICS_INSECURE", "telemetry.metrics", "insecure"),
    signal("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "telemetry.metrics", "certificate"),
    signal("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", "telemetry.metrics", "client_certificate"),
    signal("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "telemetry.metrics", "client_key"),
    signal("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "telemetry.logs", "endpoint"),
    signal("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "telemetry.logs", "protocol"),
    signal("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "telemetry.logs", "headers"),
    signal("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "telemetry.logs", "timeout_ms"),
    signal("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "telemetry.logs", "compression"),
    signal("OTEL_EXPORTER_OTLP_LOGS_INSECURE", "telemetry.logs", "insecure"),
    signal("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "telemetry.logs", "certificate"),
    signal("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", "telemetry.logs", "client_certificate"),
    signal("OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY", "telemetry.logs", "client_key"),
    telemetry("OTEL_RESOURCE_ATTRIBUTES", "resource_attributes"),
    telemetry("OTEL_SERVICE_NAME", "service_name"),
    telemetry("OTEL_TRACES_SAMPLER", "sampler"),
    telemetry("OTEL_TRACES_SAMPLER_ARG", "sampler_arg"),
    telemetry("OTEL_PROPAGATORS", "propagators"),
    telemetry("OTEL_TRACES_EXPORTER", "traces_exporter"),
    telemetry("OTEL_METRICS_EXPORTER", "metrics_exporter"),
    telemetry("OTEL_LOGS_EXPORTER", "logs_exporter"),
    telemetry("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "batch_size"),
    telemetry("OTEL_BSP_MAX_QUEUE_SIZE", "queue_size"),
    telemetry("OTEL_BSP_SCHEDULE_DELAY", "batch_timeout_ms"),
    signal("OTEL_BSP_EXPORT_TIMEOUT", "telemetry.traces", "deadline_ms"),
    signal("OTEL_METRIC_EXPORT_TIMEOUT", "telemetry.metrics", "deadline_ms"),
    telemetry("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "metrics_temporality"),
    telemetry("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "metrics_histogram_aggregation"),
    telemetry("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "logs_batch_size"),
    telemetry("OTEL_BLRP_MAX_QUEUE_SIZE", "logs_queue_size"),
    telemetry("OTEL_BLRP_SCHEDULE_DELAY", "logs_batch_timeout_ms"),
    signal("OTEL_BLRP_EXPORT_TIMEOUT", "telemetry.logs", "deadline_ms"),
    Standard { convert: seconds, ..telemetry("OTEL_METRIC_EXPORT_INTERVAL", "metrics_export_interval") },
    Standard { variable: "RUST_LOG", section: "logging", key: "level", convert: str::to_owned },
];

/// Milliseconds as seconds; what is no number stays as it is, to be named.
fn seconds(milliseconds: &str) -> String {
    milliseconds.parse::<f64>().map_or(milliseconds.to_owned(), |number| (number / 1000.0).to_string())
}

/// Holds whatever it is: no link here has attributes.
const LINK_ATTRIBUTES: &str = "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT";

/// Switches all export off, whatever else is said.
const SDK_DISABLED: &str = "OTEL_SDK_DISABLED";

/// Applies the environment. Returns the warnings: a bad value in a variable of OpenTelemetry's is passed
/// over, as its specification demands; one in a variable of Ferrite's is a problem.
pub(super) fn apply(environment: &[(String, String)], config: &mut Config, problems: &mut Vec<Problem>) -> Vec<String> {
    let mut warnings = Vec::new();
    // "Set but empty" means "not set" to OpenTelemetry.
    let value_of = |name: &str| {
        environment.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    };
    let before = config.telemetry.clone();
    for Standard { variable, section, key, convert } in STANDARD {
        let Some(value) = value_of(variable) else {
            continue;
        };
        let key = Key::of(section, key).expect("standard variables set keys that exist");
        if let Err(reason) = key.apply(config, &Given::Text(convert(value))) {
            warnings.push(format!("{variable} is ignored: {reason}"));
        }
    }
    // OTEL_SERVICE_NAME goes over the same attribute of OTEL_RESOURCE_ATTRIBUTES, which goes over the file.
    service::adopt(&before, &mut config.telemetry);
    if let Some(name) = value_of("OTEL_SERVICE_NAME") {
        config.telemetry.service_name = name.to_owned();
    }
    let before = config.telemetry.clone();
    for (name, value) in environment {
        // Kubernetes sets FERRITE_PORT and the like for a service of that name: only `__` marks a key.
        let Some((section, key)) = name.strip_prefix("FERRITE_").and_then(|rest| rest.rsplit_once("__")) else {
            continue;
        };
        let section = section.to_ascii_lowercase().replace("__", ".");
        let applied = match Key::of(&section, &key.to_ascii_lowercase()) {
            Some(key) => key.apply(config, &Given::Text(value.clone())),
            None => Err(format!("unknown variable{}", suggest::variable(name))),
        };
        if let Err(message) = applied {
            problems.push(Problem::new(name.as_str(), message));
        }
    }
    service::adopt(&before, &mut config.telemetry);
    match value_of(SDK_DISABLED) {
        Some(value) if value.eq_ignore_ascii_case("true") => config.telemetry.enabled = false,
        Some(value) if !value.eq_ignore_ascii_case("false") => {
            warnings.push(format!("{SDK_DISABLED} is ignored: expected true or false, found {value:?}"));
        }
        _ => {}
    }
    warnings
}

/// Names of OpenTelemetry's or Ferrite's that set nothing and are not `used` otherwise, each with the one that may have been meant.
pub(super) fn unknown(environment: &[(String, String)], used: impl Fn(&str) -> bool) -> Vec<String> {
    let is_known = |name: &str| {
        [SDK_DISABLED, LINK_ATTRIBUTES].contains(&name) || STANDARD.iter().any(|standard| standard.variable == name)
    };
    let of_ours = |name: &str| name.strip_prefix("FERRITE_").is_some_and(|rest| !rest.contains("__"));
    let names = environment.iter().map(|(name, _)| name.as_str());
    let mut unknown: Vec<_> =
        names.filter(|name| (name.starts_with("OTEL_") && !is_known(name)) || of_ours(name)).collect();
    unknown.retain(|name| !used(name));
    unknown.sort_unstable();
    let standard = || STANDARD.iter().map(|standard| standard.variable);
    let meant = |name: &str| suggest::variable_among(name, standard());
    unknown.into_iter().map(|name| format!("{name} sets nothing{}", meant(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::KEYS;
    use super::super::tests::load;
    use super::*;
    use ferrite_node::config::{
        Exporters, HistogramAggregation, OtlpCompression, OtlpProtocol, SignalConfig, Temporality,
    };

    #[test]
    fn opentelemetry_s_variables_go_over_the_file_and_enable_nothing() {
        let text =
            "[telemetry]\nservice_name = \"file\"\n[telemetry.resource_attributes]\na = \"file\"\nb = \"file\"\n";
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20token123"),
            ("OTEL_RESOURCE_ATTRIBUTES", "b=environment,service.name=attribute"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
            ("OTEL_PROPAGATORS", "b3,baggage"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "otlp,console"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "201"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "202"),
            ("OTEL_BLRP_EXPORT_TIMEOUT", "203"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "204"),
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "206"),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "205"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "700"),
            ("RUST_LOG", "ferrite=debug,opentelemetry=debug"),
        ];
        let loaded = load(text, &environment, &[]).unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let telemetry = &loaded.config.telemetry;
        assert!(!telemetry.enabled);
        assert_eq!(telemetry.endpoint.as_deref(), Some("http://collector:4318"));
        assert_eq!(telemetry.protocol, OtlpProtocol::Http);
        assert_eq!(telemetry.headers["authorization"], "Bearer token123");
        assert_eq!(telemetry.service_name, "attribute");
        let attributes: Vec<_> = telemetry.resource_attributes.values().map(String::as_str).collect();
        assert_eq!(attributes, ["file", "environment"]);
        assert_eq!(telemetry.sampler.as_deref(), Some("parentbased_traceidratio"));
        assert_eq!(telemetry.sampler_arg.as_deref(), Some("0.1"));
        assert_eq!(telemetry.propagators.as_deref(), Some("b3,baggage"));
        assert!(!telemetry.traces_exporter.any() && telemetry.traces_enabled);
        assert_eq!(telemetry.metrics_exporter, Exporters { otlp: true, console: true });
        assert_eq!((telemetry.metrics_export_interval, telemetry.batch_timeout_ms), (1.5, 200));
        assert_eq!((telemetry.export_timeout_ms, telemetry.traces.timeout_ms), (3000, 0));
        assert_eq!(telemetry.metrics.timeout_ms, 700);
        let deadlines = [&telemetry.traces, &telemetry.metrics, &telemetry.logs].map(|signal| signal.deadline_ms);
        assert_eq!(deadlines, [201, 202, 203]);
        assert_eq!((telemetry.logs_batch_timeout_ms, telemetry.logs_queue_size), (204, 206));
        assert_eq!(telemetry.logs_batch_size, 205);
        assert_eq!(loaded.config.logging.level, "ferrite=debug,opentelemetry=debug");
    }

    #[test]
    fn every_setting_of_the_exporter_has_a_variable_for_all_signals_and_one_for_each() {
        let mut environment = Vec::new();
        let values = [
            ("ENDPOINT", "https://h:1"),
            ("PROTOCOL", "http/protobuf"),
            ("HEADERS", "a=b"),
            ("TIMEOUT", "77"),
            ("COMPRESSION", "gzip"),
            ("INSECURE", "true"),
            ("CERTIFICATE", "ca.pem"),
            ("CLIENT_CERTIFICATE", "client.pem"),
            ("CLIENT_KEY", "client.key"),
        ];
        for signal in ["", "TRACES_", "METRICS_", "LOGS_"] {
            environment.extend(values.map(|(name, value)| (format!("OTEL_EXPORTER_OTLP_{signal}{name}"), value)));
        }
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let loaded = load("", &environment, &[]).unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
        let all = loaded.config.telemetry;
        let text = |text: &str| Some(text.to_owned());
        let one = SignalConfig {
            endpoint: text("https://h:1"),
            protocol: Some(OtlpProtocol::Http),
            headers: [("a".to_owned(), "b".to_owned())].into(),
            timeout_ms: 77,
            deadline_ms: 0,
            compression: Some(OtlpCompression::Gzip),
            insecure: Some(true),
            certificate: text("ca.pem"),
            client_certificate: text("client.pem"),
            client_key: text("client.key"),
        };
        assert_eq!([&all.traces, &all.metrics, &all.logs], [&one; 3]);
        let general = SignalConfig {
            endpoint: all.endpoint,
            protocol: Some(all.protocol),
            headers: all.headers,
            timeout_ms: all.export_timeout_ms,
            deadline_ms: 0,
            compression: Some(all.compression),
            insecure: Some(all.insecure),
            certificate: all.certificate,
            client_certificate: all.client_certificate,
            client_key: all.client_key,
        };
        assert_eq!(general, one);
    }

    #[test]
    fn metrics_can_be_deltas() {
        let preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        for (value, temporality) in [("Delta", Temporality::Delta), ("lowmemory", Temporality::LowMemory)] {
            let loaded = load("", &[(preference, value)], &[]).unwrap();
            assert_eq!(loaded.config.telemetry.metrics_temporality, temporality);
            assert_eq!(loaded.warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn histograms_can_be_exponential_and_stay_explicit_for_an_unknown_word() {
        let aggregation = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
        let of = |value: &str| {
            let loaded = load("", &[(aggregation, value)], &[]).unwrap();
            (loaded.config.telemetry.metrics_histogram_aggregation, loaded.warnings)
        };
        assert_eq!(of(""), (HistogramAggregation::ExplicitBucket, vec![]));
        assert_eq!(of("explicit_bucket_histogram"), (HistogramAggregation::ExplicitBucket, vec![]));
        assert_eq!(of("Base2_Exponential_Bucket_Histogram"), (HistogramAggregation::Base2Exponential, vec![]));
        let warning = format!(
            "{aggregation} is ignored: expected \"explicit_bucket_histogram\" or \
             \"base2_exponential_bucket_histogram\", found \"native\""
        );
        assert_eq!(of("native"), (HistogramAggregation::ExplicitBucket, vec![warning]));
    }

    #[test]
    fn limits_of_all_signals_are_over_the_general_ones() {
        let environment = [
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "10"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "20"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "30"),
            ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "40"),
            ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "5"),
        ];
        let loaded = load("", &environment, &[]).unwrap();
        let (spans, logs) = (loaded.config.telemetry.limits, loaded.config.telemetry.log_limits);
        assert_eq!((spans.attribute_count, spans.attribute_value_length), (30, Some(20)));
        assert_eq!((logs.attribute_count, logs.attribute_value_length), (10, Some(40)));
        assert_eq!((&loaded.warnings, loaded.sources.unknown_variables()), (&vec![], vec![]));
        let logs = load("", &[("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "3")], &[]).unwrap().config.telemetry.log_limits;
        assert_eq!((logs.attribute_count, logs.attribute_value_length), (3, None));
    }

    #[test]
    fn json_over_http_is_named_as_what_is_not_there() {
        let loaded = load("", &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")], &[]).unwrap();
        assert_eq!(
            loaded.warnings,
            [
                "OTEL_EXPORTER_OTLP_PROTOCOL is ignored: expected \"grpc\", \"http\" or \"http/protobuf\", found \"http/json\""
            ]
        );
    }

    #[test]
    fn what_the_attributes_say_of_the_service_goes_over_the_file() {
        let file = "[telemetry]\nservice_name = \"file\"\nservice_version = \"1\"\nservice_namespace = \"file\"\n";
        let environment = |attributes: &'static str| [("OTEL_RESOURCE_ATTRIBUTES", attributes)];
        let service = |text: &str, environment: &[(&str, &str)], flags: &[&str]| {
            let telemetry = load(text, environment, flags).unwrap().config.telemetry;
            let resource = telemetry.resource();
            let of = |wanted: &str| {
                let values: Vec<_> =
                    resource.iter().filter(|(key, _)| key == wanted).map(|(_, value)| &**value).collect();
                values.join("|")
            };
            format!("{} {} {}", of("service.name"), of("service.version"), of("service.namespace"))
        };
        assert_eq!(service(file, &[], &[]), "file 1 file");
        assert_eq!(
            service(file, &environment("service.version=2,service.namespace=environment"), &[]),
            "file 2 environment"
        );
        // A name that only begins so is another one.
        assert_eq!(service(file, &environment("service.name.other=x"), &[]), "file 1 file");
        assert_eq!(
            service(file, &environment("service.name=attribute"), &["telemetry.service_name=flag"]),
            "flag 1 file"
        );
        let flag = ["telemetry.resource_attributes=service.version=flag"];
        assert_eq!(service(file, &environment("service.version=2"), &flag), "file flag file");
        let of_ours = [("OTEL_RESOURCE_ATTRIBUTES", "service.version=2"), ("FERRITE_TELEMETRY__SERVICE_VERSION", "3")];
        assert_eq!(service(file, &of_ours, &[]), "file 3 file");
        // In the file itself the key goes over the attribute, and without one the attribute counts.
        let table = "[telemetry.resource_attributes]\n\"service.version\" = \"table\"\n\"service.name\" = \"table\"\n";
        assert_eq!(service(&format!("{file}{table}"), &[], &[]), "file 1 file");
        assert_eq!(service(table, &[], &[]), "table table ");
        let default = [("OTEL_SERVICE_NAME", "ferrite"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute")];
        assert!(service("", &default, &[]).starts_with("ferrite "));
    }

    #[test]
    fn the_service_s_own_variable_goes_over_the_attribute() {
        let environment = [("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute"), ("OTEL_SERVICE_NAME", "own")];
        let telemetry = load("", &environment, &[]).unwrap().config.telemetry;
        assert_eq!(telemetry.service_name, "own");
        assert!(telemetry.resource_attributes.is_empty());
    }

    #[test]
    fn a_bad_value_of_opentelemetry_s_is_a_warning_and_an_empty_one_is_none() {
        let environment =
            [("OTEL_EXPORTER_OTLP_PROTOCOL", "pigeon"), ("OTEL_SERVICE_NAME", ""), ("OTEL_SDK_DISABLED", "1")];
        let loaded = load("", &environment, &[]).unwrap();
        assert_eq!(loaded.config.telemetry.protocol, OtlpProtocol::Grpc);
        assert_eq!(
            loaded.warnings,
            [
                "OTEL_EXPORTER_OTLP_PROTOCOL is ignored: expected \"grpc\", \"http\" or \"http/protobuf\", found \"pigeon\"",
                "OTEL_SDK_DISABLED is ignored: expected true or false, found \"1\"",
            ]
        );
    }

    #[test]
    fn the_sdk_switch_turns_telemetry_off_under_the_command_line() {
        let environment = [("OTEL_SDK_DISABLED", "True"), ("FERRITE_TELEMETRY__ENABLED", "true")];
        assert!(!load("[telemetry]\nenabled = true\n", &environment, &[]).unwrap().config.telemetry.enabled);
        assert!(load("", &environment, &["telemetry.enabled=true"]).unwrap().config.telemetry.enabled);
    }

    /// Texts of which each key takes at least one that is not its default.
    const TEXTS: &[&str] = &[
        "true",
        "false",
        "2",
        "0.5",
        "1mb",
        "127.0.0.2",
        "3600 1",
        "none",
        "console",
        "http",
        "gzip",
        "delta",
        "base2_exponential_bucket_histogram",
        "command",
        "hash",
        "slow",
        "text",
        "yes",
        "always",
        "io-threads",
        "allkeys-lru",
        "a=b",
        "GET=0.5",
        "22:00-06:00=0.01",
        "db.operation=GET",
        "9999",
    ];

    /// The first of the texts with which `apply` makes another configuration than the default, one that is sound: a queue has
    /// room for a batch.
    fn text_for(apply: impl Fn(&str) -> Option<Config>) -> Option<&'static str> {
        let is_sound = |config: &Config| {
            let telemetry = &config.telemetry;
            telemetry.batch_size <= telemetry.queue_size && telemetry.logs_batch_size <= telemetry.logs_queue_size
        };
        let fits = |text: &&&str| apply(text).is_some_and(|config| config != Config::default() && is_sound(&config));
        TEXTS.iter().find(fits).copied()
    }

    #[test]
    fn every_key_s_variable_sets_it_and_nothing_else_between_the_file_and_the_command_line() {
        for key in KEYS {
            let applied = |text: &str| {
                let mut config = Config::default();
                key.apply(&mut config, &Given::Text(text.to_owned())).ok().map(|()| config)
            };
            let text = text_for(applied).unwrap_or_else(|| panic!("no text for {}", key.path));
            let expected = applied(text);
            let variable = key.variable();
            let loaded = load("", &[(&variable, text)], &[]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((Some(&loaded.config), loaded.warnings), (expected.as_ref(), Vec::new()), "{variable}={text}");
            // Over the file, under the command line. What a source adds to the one before is left alone.
            let default = key.show(&Config::default());
            if default.is_array() || default.is_inline_table() {
                continue;
            }
            let file = format!("[{}]\n{} = {}\n", key.section, key.name, default.to_string().trim());
            let loaded = load(&file, &[(&variable, text)], &[]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(Some(&loaded.config), expected.as_ref(), "{variable} over {file}");
            let plain = default.as_str().map_or(default.to_string(), str::to_owned);
            let flag = format!("{}={}", key.path, plain.trim());
            let loaded = load("", &[(&variable, text)], &[&flag]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(loaded.config, Config::default(), "{flag} over {variable}={text}");
        }
    }

    #[test]
    fn every_standard_variable_sets_the_key_that_it_stands_for() {
        for Standard { variable, .. } in STANDARD {
            // Some stand for keys of more than one signal.
            let applied = |text: &str| {
                let mut config = Config::default();
                for Standard { section, key, convert, .. } in
                    STANDARD.iter().filter(|other| other.variable == *variable)
                {
                    let key = Key::of(section, key).expect("it exists");
                    key.apply(&mut config, &Given::Text(convert(text))).ok()?;
                }
                Some(config)
            };
            let text = text_for(applied).unwrap_or_else(|| panic!("no text for {variable}"));
            let loaded = load("", &[(variable, text)], &[]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((Some(loaded.config), loaded.warnings), (applied(text), Vec::new()), "{variable}={text}");
        }
    }

    #[test]
    fn every_key_has_a_variable_and_bad_ones_are_named() {
        for key in KEYS {
            let shown = key.show(&Config::default());
            // Texts as they are, the rest as TOML writes it; lists and tables have their own form.
            let text = shown.as_str().map_or(shown.to_string(), str::to_owned);
            if !shown.is_array() && !shown.is_inline_table() {
                let loaded = load("", &[(&key.variable(), text.trim())], &[]).unwrap();
                assert_eq!(loaded.config, Config::default());
            }
        }
        let unknown = load("", &[("FERRITE_SERVER__PROT", "1")], &[]).unwrap_err();
        assert_eq!(unknown, "FERRITE_SERVER__PROT: unknown variable (did you mean \"FERRITE_SERVER__PORT\"?)");
        assert!(load("", &[("FERRITE_PORT", "tcp://10.0.0.1:6379")], &[]).is_ok());
    }
}
