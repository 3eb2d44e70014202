//! The one declared place of every telemetry name: spans, attributes, events, metrics, log fields and the values that
//! come from a closed set. Nowhere else is any of them written as a literal.

mod attributes;
mod emitted;
mod logs;
mod metrics;
mod spans;

#[cfg(test)]
mod documents;
#[cfg(test)]
mod tests;

pub use attributes::{Attribute, DB_SYSTEM, ErrorType, MASK, ValueType};
pub use logs::{COLD_FAILURE, COLD_TARGET, LogField, REQUEST_ID, log_target};
pub use metrics::{
    DURATION_BOUNDS, DropReason, EXEMPLAR_SPAN_ID, EXEMPLAR_TRACE_ID, Instrument, Label, METRICS, Metric, RunResult,
    SYNC_BOUNDS, SampledBy, prometheus_name,
};
pub use spans::{
    CompactionReason, ConnectionEnd, EventName, ExceptionType, Operation, Outcome, Role, SpanKind, SpanName, Tier,
};

/// Declares an enum whose variants each have one name on the wire, with `ALL` and `as_str`.
macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $doc])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name as it is exported.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// What it means: the variant's documentation, as the generated pages have it.
            #[allow(dead_code, reason = "some sets are told by their names alone")]
            pub(crate) const fn doc(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*)),+ }
            }

            /// The variant with this discriminant.
            #[allow(dead_code, reason = "only the names that the ring stores are read back")]
            pub(crate) fn from_u8(code: u8) -> Option<Self> {
                Self::ALL.get(usize::from(code)).copied()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
use names;
