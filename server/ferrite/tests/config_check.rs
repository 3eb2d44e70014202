//! `ferrite config check`, on the documentation's own file among others.

// Drives a real process: time and files are the system's.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::process::{Command, Output};

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/full-reference.toml");

/// Exit code, standard output, standard error.
fn check(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
    command.env_clear().envs(environment.iter().copied()).args(["config", "check"]).args(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A file with this text, and where it is.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ferrite.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn the_full_configuration_reference_loads_and_is_printed() {
    assert!(Path::new(REFERENCE).exists());
    let (code, printed, problems) = check(&[REFERENCE, "--print"], &[("OTEL_AUTH_TOKEN", "s3cret")]);
    assert_eq!((code, problems.as_str()), (Some(0), ""));
    for line in [
        "telemetry.enabled = true",
        "telemetry.endpoint = \"http://localhost:4317\"",
        "telemetry.protocol = \"grpc\"",
        "telemetry.service_name = \"ferrite\"",
        "telemetry.service_version = \"1.0.0\"",
        "telemetry.service_namespace = \"production\"",
        "telemetry.sample_rate = 1.0",
        "telemetry.traces_enabled = true",
        "telemetry.metrics_enabled = true",
        "telemetry.logs_enabled = true",
        "telemetry.metrics_export_interval = 60.0",
        "telemetry.batch_size = 512",
        "telemetry.batch_timeout_ms = 5000",
        "telemetry.headers = <set>",
        "the configuration is sound",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is not in\n{printed}");
    }
    let attributes = printed.lines().find(|line| line.starts_with("telemetry.resource_attributes = ")).unwrap();
    for pair in ["\"deployment.environment\" = \"production\"", "\"service.instance.id\" = \"i-0abc123\""] {
        assert!(attributes.contains(pair), "{attributes}");
    }
    assert!(!printed.contains("s3cret"), "a header is a secret");
}

#[test]
fn no_secret_is_printed_wherever_it_stands() {
    let text = "[server]\nrequirepass = \"s3cret\"\n\
                [telemetry]\nendpoint = \"https://me:s3cret@host:4317\"\n\
                [telemetry.headers]\nauthorization = \"s3cret\"\n\
                [telemetry.traces]\nendpoint = \"https://host/v1/traces?token=s3cret\"\n\
                [telemetry.metrics.headers]\nx-key = \"s3cret\"\n\
                [telemetry.redaction]\nsalt = \"s3cret\"\n";
    let (_dir, path) = file(text);
    let environment =
        [("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=s3cret"), ("FERRITE_TELEMETRY__LOGS__HEADERS", "b=s3cret")];
    let (code, printed, problems) = check(&[&path, "--print"], &environment);
    assert_eq!((code, problems.as_str()), (Some(0), ""));
    assert!(!printed.contains("s3cret"), "{printed}");
    for line in [
        "server.requirepass = <set>",
        "telemetry.headers = <set>",
        "telemetry.traces.headers = <set>",
        "telemetry.metrics.headers = <set>",
        "telemetry.logs.headers = <set>",
        "telemetry.redaction.salt = <set>",
        "telemetry.endpoint = \"https://host:4317\"",
        "telemetry.traces.endpoint = \"https://host/v1/traces\"",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is not in\n{printed}");
    }
    // A header that was written as one is no pair; and a problem is no place to show it.
    let environment = [("OTEL_EXPORTER_OTLP_HEADERS", "authorization: s3cret")];
    let (code, printed, warnings) = check(&[], &environment);
    assert_eq!((code, printed.as_str()), (Some(0), "the configuration is sound\n"));
    assert!(warnings.starts_with("warning: OTEL_EXPORTER_OTLP_HEADERS is ignored: "), "{warnings}");
    assert!(!warnings.contains("s3cret"), "{warnings}");
}

#[test]
fn every_problem_is_named_with_its_line_and_nothing_is_started() {
    let (_dir, path) = file("[telemetry]\nenabled = perhaps\n");
    let (code, printed, problems) = check(&[&path], &[]);
    assert_eq!((code, printed.as_str()), (Some(2), ""));
    assert!(problems.starts_with(&format!("{path}:2: ")), "{problems}");

    let (_dir, path) = file("[telemetry]\nsample_rate = 7\n\n[server]\nprot = 1\n");
    let (code, _, problems) = check(&[&path], &[("FERRITE_AOF__ENABLED", "perhaps")]);
    let expected = format!(
        "{path}:2: telemetry.sample_rate: expected a number from 0.0 to 1.0, found 7\n\
         {path}:5: unknown key \"server.prot\" (did you mean \"server.port\"?)\n\
         FERRITE_AOF__ENABLED: expected true or false, found \"perhaps\"\n"
    );
    assert_eq!((code, problems), (Some(2), expected));

    let (code, _, problems) = check(&["/nonexistent/ferrite.toml"], &[]);
    assert_eq!(code, Some(2));
    assert!(problems.starts_with("/nonexistent/ferrite.toml: No such file"), "{problems}");
}

#[test]
fn what_only_a_start_would_find_is_found() {
    let (_dir, path) = file("[logging]\nlevel = \"ferrite=loud\"\n");
    let (code, _, problems) = check(&[&path], &[]);
    assert_eq!(code, Some(2), "{problems}");
    assert!(problems.starts_with("logging.level: "), "{problems}");
}

#[test]
fn variables_that_set_nothing_are_warnings() {
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPIONT", "http://collector:4317"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("FERRITE_SERVER_PORT", "1"),
        ("HOME", "/"),
    ];
    let (code, printed, warnings) = check(&[], &environment);
    assert_eq!((code, printed.as_str()), (Some(0), "the configuration is sound\n"), "{warnings}");
    let warned = |start: &str| warnings.lines().any(|line| line.starts_with(start));
    let meant = "(did you mean \"OTEL_EXPORTER_OTLP_ENDPOINT\"?)";
    assert!(warned(&format!("warning: OTEL_EXPORTER_OTLP_ENDPIONT sets nothing {meant}")), "{warnings}");
    assert!(warned("warning: FERRITE_SERVER_PORT sets nothing (did you mean \"FERRITE_SERVER__PORT\"?)"), "{warnings}");
    assert!(!warnings.contains("HOME"), "{warnings}");
}
