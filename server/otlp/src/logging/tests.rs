use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::subscriber::with_default;

use super::*;

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<Vec<u8>>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines that `scope` logs; each must be one write.
fn lines(filter: &str, format: LogFormat, scope: impl FnOnce()) -> Vec<String> {
    let output = Output::default();
    let writer = output.clone();
    let settings = LogSettings { filter: filter.to_owned(), format, unix_ns: || 1_752_575_400_123_999_999 };
    let subscriber = subscriber(&settings, move || writer.clone(), None, None).expect("the filter is valid");
    with_default(subscriber, scope);
    let written = output.0.lock().clone();
    let text = |line: Vec<u8>| String::from_utf8(line).expect("a line is text");
    written.into_iter().map(|line| text(line).strip_suffix('\n').expect("a line ends").to_owned()).collect()
}

fn command_executed() {
    tracing::info!(
        target: "ferrite::commands::strings",
        trace_id = %"0af7651916cd43dd8448eb211c80319c",
        span_id = "b7ad6b7169203331",
        command = "SET",
        key = "user:123",
        duration_us = 45,
        result = "OK",
        client_addr = %std::net::SocketAddr::from(([192, 168, 1, 10], 54321)),
        "Command executed"
    );
}

#[test]
fn a_json_line_is_the_documented_one() {
    assert_eq!(
        lines("info", LogFormat::Json, command_executed),
        [concat!(
            r#"{"timestamp":"2025-07-15T10:30:00.123Z","level":"INFO","target":"ferrite::commands::strings","#,
            r#""message":"Command executed","trace_id":"0af7651916cd43dd8448eb211c80319c","#,
            r#""span_id":"b7ad6b7169203331","fields":{"command":"SET","key":"user:123","duration_us":45,"#,
            r#""result":"OK","client_addr":"192.168.1.10:54321"}}"#
        )]
    );
}

#[test]
fn a_text_line_has_the_same_in_the_same_order() {
    assert_eq!(
        lines("info", LogFormat::Text, command_executed),
        [concat!(
            "2025-07-15T10:30:00.123Z  INFO ferrite::commands::strings: Command executed ",
            "trace_id=0af7651916cd43dd8448eb211c80319c span_id=b7ad6b7169203331 ",
            r#"command="SET" key="user:123" duration_us=45 result="OK" client_addr="192.168.1.10:54321""#
        )]
    );
}

#[test]
fn ids_are_left_out_where_there_are_none_and_values_keep_their_types() {
    let written = lines("info", LogFormat::Json, || {
        let none: Option<&str> = None;
        let error = std::io::Error::other("disk \"a\"\nfull");
        tracing::warn!(target: "ferrite_node::worker", trace_id = none, ratio = 0.5, odd = f64::NAN, on = true,
            delta = -3, big = u64::MAX, %error, r#type = ?Some(1), "x {}", 1);
    });
    let line: Value = serde_json::from_str(&written[0]).expect("a line is JSON");
    assert_eq!(line["target"], "ferrite::node::worker");
    assert_eq!(line["message"], "x 1");
    assert!(line.get("trace_id").is_none() && line.get("span_id").is_none());
    let fields = &line["fields"];
    assert_eq!((&fields["ratio"], &fields["on"], &fields["delta"]), (&0.5.into(), &true.into(), &(-3).into()));
    assert_eq!((&fields["odd"], &fields["big"]), (&"NaN".into(), &u64::MAX.into()));
    assert_eq!((&fields["error"], &fields["type"]), (&"disk \"a\"\nfull".into(), &"Some(1)".into()));
    assert_eq!(
        lines("info", LogFormat::Json, || tracing::info!("bare"))[0].split_once(",\"message\"").expect("it has one").1,
        r#":"bare","fields":{}}"#
    );
}

#[test]
fn nothing_from_outside_begins_a_line_of_text() {
    let written = lines("info", LogFormat::Text, || {
        tracing::info!(trace_id = "a\nb", key = "c\r\nd\u{7}", "e\nf");
    });
    assert_eq!(written.len(), 1);
    assert!(written[0].ends_with(r#"e\nf trace_id=a\nb key="c\r\nd\u0007""#), "{}", written[0]);
}

/// Which of some targets and levels a filter lets through.
fn passes(filter: &str) -> Vec<&'static str> {
    let written = lines(filter, LogFormat::Json, || {
        tracing::info!(target: "hyper::proto", "hyper info");
        tracing::debug!(target: "ferrite::run", "binary debug");
        tracing::debug!(target: "ferrite_node::session", "node debug");
        tracing::debug!(target: "ferrite::commands::strings", "commands debug");
        tracing::debug!(target: "opentelemetry-otlp", "otlp debug");
        tracing::debug!(target: "opentelemetry_sdk", "sdk debug");
    });
    let known = ["hyper info", "binary debug", "node debug", "commands debug", "otlp debug", "sdk debug"];
    known.into_iter().filter(|message| written.iter().any(|line| line.contains(message))).collect()
}

#[test]
fn a_filter_selects_all_of_ferrite_or_a_part_of_it() {
    assert_eq!(passes("info"), ["hyper info"]);
    assert_eq!(passes("off"), [""; 0]);
    assert_eq!(
        passes("ferrite=debug,opentelemetry=debug"),
        ["binary debug", "node debug", "commands debug", "otlp debug", "sdk debug"]
    );
    assert_eq!(passes("warn, ferrite::node=debug"), ["node debug"]);
    assert_eq!(passes("ferrite::commands=debug"), ["commands debug"]);
    assert_eq!(passes("ferrite_node=debug"), ["node debug"]);
}

#[test]
fn a_filter_that_makes_no_sense_is_named() {
    for filter in ["ferrite=loud", "a=b=c"] {
        let settings = LogSettings { filter: filter.to_owned(), format: LogFormat::Json, unix_ns: || 0 };
        let message = subscriber(&settings, std::io::sink, None, None).err().expect("it is refused").to_string();
        assert!(message.contains(&format!("\"{filter}\"")), "{message}");
    }
}

#[test]
fn times_before_and_after_a_leap_day() {
    assert_eq!(rfc3339(0, 3), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(1_709_251_199_999_000_000, 3), "2024-02-29T23:59:59.999Z");
    assert_eq!(rfc3339(u64::MAX, 3), "2554-07-21T23:34:33.709Z");
}

#[cfg(feature = "otel")]
#[test]
fn exported_records_say_what_lines_say_but_for_those_of_the_export() {
    use ferrite_telemetry::{SpanId, TraceId};
    use tracing::Level;

    let queue = Arc::new(LogQueue::new(10, 10));
    let settings =
        LogSettings { filter: "debug".to_owned(), format: LogFormat::Json, unix_ns: || 1_752_575_400_123_999_999 };
    let subscriber = subscriber(&settings, std::io::sink, Some(queue.clone()), None).expect("the filter is valid");
    with_default(subscriber, || {
        command_executed();
        tracing::trace!("too low");
        tracing::debug!(target: "ferrite_otlp::export::delivery", "exported");
        tracing::debug!(target: "hyper::proto", "flushed");
        tracing::warn!(target: "h2o", "not ours");
    });
    let records = queue.take();
    let messages: Vec<&str> = records.iter().map(|record| record.message.as_str()).collect();
    assert_eq!(messages, ["Command executed", "not ours"]);
    let command = &records[0];
    let ids = (TraceId(0x0af7651916cd43dd8448eb211c80319c), SpanId(0xb7ad6b7169203331));
    assert_eq!((command.unix_ns, command.level, command.ids), (1_752_575_400_123_999_999, Level::INFO, Some(ids)));
    assert_eq!(command.target, "ferrite::commands::strings");
    let names: Vec<&str> = command.fields.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["command", "key", "duration_us", "result", "client_addr"]);
    assert_eq!(command.fields[2].1, Value::from(45));
}
