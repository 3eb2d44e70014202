//! Spans of cold paths (start-up, shutdown): `tracing` spans with names and attributes from the schema. Whether they are
//! exported is the subscriber's business; without one they cost nothing.

use std::fmt::Display;

use tracing::{Instrument, Span};

use crate::schema::{Attribute, COLD_FAILURE};

#[doc(hidden)]
pub use tracing;

/// A span of a cold path: its [`SpanName`](crate::SpanName), then each [`Attribute`] that it may get by [`set`] or
/// [`set_text`]. Its parent is the span that it is made in.
#[macro_export]
macro_rules! cold_span {
    ($name:ident $(, $attribute:ident)*) => {
        $crate::cold::tracing::info_span!(
            target: $crate::schema::COLD_TARGET,
            $crate::SpanName::$name.as_str(),
            $({ $crate::Attribute::$attribute.as_str() } = $crate::cold::tracing::field::Empty,)*
            { $crate::schema::COLD_FAILURE } = $crate::cold::tracing::field::Empty
        )
    };
}

/// Sets an attribute that [`cold_span!`] declared.
pub fn set(span: &Span, attribute: Attribute, number: u64) {
    // Signed: tracing-opentelemetry makes a text of an unsigned one.
    span.record(attribute.as_str(), i64::try_from(number).unwrap_or(i64::MAX));
}

/// Sets an attribute that [`cold_span!`] declared.
pub fn set_text(span: &Span, attribute: Attribute, text: &str) {
    span.record(attribute.as_str(), text);
}

/// Runs a step within its span; an error becomes the span's status.
pub async fn step<T, E: Display>(span: &Span, step: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let result = step.instrument(span.clone()).await;
    if let Err(error) = &result {
        span.record(COLD_FAILURE, error.to_string().as_str());
    }
    result
}
