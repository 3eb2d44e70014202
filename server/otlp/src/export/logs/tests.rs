use std::time::Duration;

use ferrite_telemetry::{SpanId, TraceId};

use super::*;
use crate::export::testing::{Backend, TestClock, exchange, real, settings, wait_until};
use crate::transport::Protocol;

fn record(level: Level, target: &str) -> LogRecord {
    LogRecord {
        unix_ns: 7,
        level,
        target: target.to_owned(),
        message: "Command executed".to_owned(),
        ids: (level == Level::INFO).then_some((TraceId(1), SpanId(2))),
        fields: vec![
            ("command", "SET".into()),
            ("duration_us", 45.into()),
            ("big", u64::MAX.into()),
            ("ratio", 0.5.into()),
            ("slow", true.into()),
        ],
    }
}

#[test]
fn records_arrive_over_both_protocols_with_severity_ids_target_and_resource() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        real(async move {
            let backend = Backend::start(protocol).await;
            let queue = Arc::new(LogQueue::new(10, 3));
            for (level, target) in [(Level::INFO, "b"), (Level::ERROR, "a"), (Level::DEBUG, "b")] {
                queue.push(record(level, target));
            }
            let exchange = exchange(&backend.destination(Signal::Logs));
            let delivery = Delivery::new(TestClock, exchange, Signal::Logs, &settings(), 1);
            let encode = |batch: &[LogRecord]| request(&settings().resource(), &LogLimits::default(), batch);
            let waiting = queue.clone();
            let shutdown = async move { wait_until(|| waiting.counts().exported == 3).await };
            let batch_timeout = Duration::from_secs(5);
            BatchExport { queue, delivery, encode, batch_timeout, console: None }.run(shutdown).await;

            let received = backend.received();
            assert_eq!(received.requests, 1);
            let logs = &received.logs[0];
            assert_eq!(logs.resource, Some(settings().resource()));
            let scopes: Vec<&str> =
                logs.scope_logs.iter().map(|logs| logs.scope.as_ref().expect("it has one").name.as_str()).collect();
            assert_eq!(scopes, ["a", "b"]);
            let [info, debug] = &logs.scope_logs[1].log_records[..] else { panic!("two of one target") };
            assert_eq!((info.severity_number, info.severity_text.as_str(), info.time_unix_nano), (9, "INFO", 7));
            assert_eq!((info.trace_id[15], info.span_id[7]), (1, 2));
            assert_eq!((debug.severity_number, debug.trace_id.len(), debug.span_id.len()), (5, 0, 0));
            assert_eq!(logs.scope_logs[0].log_records[0].severity_number, 17);
            let text = |text: &str| Some(AnyValue { value: Some(Kind::StringValue(text.to_owned())) });
            assert_eq!(info.body, text("Command executed"));
            let values: Vec<_> =
                info.attributes.iter().map(|pair| pair.value.clone().and_then(|any| any.value)).collect();
            let wanted = [
                Kind::StringValue("SET".to_owned()),
                Kind::IntValue(45),
                Kind::StringValue(u64::MAX.to_string()),
                Kind::DoubleValue(0.5),
                Kind::BoolValue(true),
            ];
            assert_eq!(values, wanted.map(Some));
        });
    }
}

#[test]
fn fields_have_their_limits() {
    let told = |attribute_count, attribute_value_length| {
        message(&record(Level::INFO, "t"), &LogLimits { attribute_count, attribute_value_length })
    };
    let short = told(2, Some(2));
    let text = |text: &str| Some(AnyValue { value: Some(Kind::StringValue(text.to_owned())) });
    assert_eq!((short.attributes.len(), short.dropped_attributes_count), (2, 3));
    assert_eq!(short.attributes[0].value, text("S…"));
    assert_eq!(short.body, text("Command executed"), "the body is no attribute");
    let whole = told(5, Some(20));
    assert_eq!((whole.attributes.len(), whole.dropped_attributes_count), (5, 0));
    assert_eq!((&whole.attributes[0].value, &whole.attributes[2].value), (&text("SET"), &text("18446744073709551615")));
}
