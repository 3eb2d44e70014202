//! `traceparent` and `tracestate` as fields of a carrier.

use std::borrow::Cow;

use super::{Field, Fields};
use crate::context::RemoteContext;

pub(super) fn extract<'a>(fields: &mut Fields<'a>) -> Option<RemoteContext<'a>> {
    let traceparent = fields.get(Field::Traceparent)?;
    let context = RemoteContext::parse(traceparent, b"")?;
    let (trace_id, span_id, flags) = (context.trace_id, context.span_id, context.flags);
    let tracestate = match fields.take(Field::Tracestate).unwrap_or_default() {
        Cow::Borrowed(text) => RemoteContext::tracestate(text),
        Cow::Owned(joined) => RemoteContext::tracestate(&joined).into_owned().into(),
    };
    Some(RemoteContext { trace_id, span_id, flags, deferred: false, tracestate })
}
