//! Joins the redis crate's commands to the caller's OpenTelemetry trace, if the server understands it.
//!
//! [`Traced`] wraps a connection of the unmodified crate, asynchronous or blocking, and is one itself. Each command or pipeline
//! gets a client span below the span that is current in [`Context`] (spans of `tracing` are, with tracing-opentelemetry), and
//! carries that span's context to Ferrite. What it looks like there is the global propagator's
//! (`opentelemetry::global::set_text_map_propagator`).
//!
//! Ferrite says in HELLO's reply (`trace-context`) that it takes contexts. A server that does not is sent plain commands.

mod carry;

/// The README's lines compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

use std::collections::HashMap;

use opentelemetry::trace::{FutureExt, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use redis::{Cmd, ConnectionLike, Pipeline, RedisError, RedisFuture, RedisResult, Value, aio, cmd};

/// A connection whose commands are spans and carry their context.
#[derive(Clone, Debug)]
pub struct Traced<C> {
    inner: C,
    takes_context: bool,
}

impl<C: aio::ConnectionLike + Send> Traced<C> {
    /// Wraps an asynchronous connection; asks the server once whether it takes contexts.
    pub async fn new(mut inner: C) -> RedisResult<Self> {
        let takes_context = answer(cmd("HELLO").query_async(&mut inner).await)?;
        Ok(Self { inner, takes_context })
    }
}

impl<C: ConnectionLike> Traced<C> {
    /// Wraps a blocking connection; asks the server once whether it takes contexts.
    pub fn blocking(mut inner: C) -> RedisResult<Self> {
        let takes_context = answer(cmd("HELLO").query(&mut inner))?;
        Ok(Self { inner, takes_context })
    }
}

impl<C> Traced<C> {
    /// Whether contexts are sent.
    pub fn server_takes_context(&self) -> bool {
        self.takes_context
    }

    /// What a command that is sent within this context carries.
    fn headers(&self, context: &Context) -> HashMap<String, String> {
        let mut headers = HashMap::new();
        if self.takes_context && context.span().span_context().is_valid() {
            global::get_text_map_propagator(|propagator| propagator.inject_context(context, &mut headers));
        }
        headers
    }
}

/// HELLO's reply, in either protocol; a server that does not know HELLO takes no contexts.
fn answer(hello: RedisResult<HashMap<String, Value>>) -> RedisResult<bool> {
    match hello {
        Ok(pairs) => Ok(pairs.contains_key("trace-context")),
        Err(error) if error.code() == Some("ERR") => Ok(false),
        Err(error) => Err(error),
    }
}

/// The current context with a client span of this name.
fn begin(name: String) -> Context {
    let builder = global::tracer("ferrite-redis-tracing");
    let builder = builder
        .span_builder(name.clone())
        .with_kind(SpanKind::Client)
        .with_attributes([KeyValue::new("db.system.name", "redis"), KeyValue::new("db.operation.name", name)]);
    Context::current_with_span(builder.start(&global::tracer("ferrite-redis-tracing")))
}

fn end<T>(context: &Context, result: &Result<T, RedisError>) {
    let span = context.span();
    if let Err(error) = result {
        span.set_status(Status::error(error.to_string()));
    }
    span.end();
}

impl<C: aio::ConnectionLike + Send> aio::ConnectionLike for Traced<C> {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        let context = begin(carry::name(cmd));
        let carrying = carry::wrapped(cmd, &self.headers(&context));
        Box::pin(async move {
            let cmd = carrying.as_ref().unwrap_or(cmd);
            let result = self.inner.req_packed_command(cmd).with_context(context.clone()).await;
            end(&context, &result);
            result
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let context = begin("PIPELINE".to_owned());
        let carrying = carry::wrapped_pipeline(pipeline, &self.headers(&context));
        Box::pin(async move {
            let pipeline = carrying.as_ref().unwrap_or(pipeline);
            let result = self.inner.req_packed_commands(pipeline, offset, count).with_context(context.clone()).await;
            end(&context, &result);
            result
        })
    }

    fn get_db(&self) -> i64 {
        self.inner.get_db()
    }
}

impl<C: ConnectionLike> ConnectionLike for Traced<C> {
    fn req_packed_command(&mut self, packed: &[u8]) -> RedisResult<Value> {
        let context = begin(carry::packed_name(packed));
        let _current = context.clone().attach();
        let packed = carry::behind_attributes(packed, &self.headers(&context));
        let result = self.inner.req_packed_command(&packed);
        end(&context, &result);
        result
    }

    fn req_packed_commands(&mut self, packed: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        let context = begin("PIPELINE".to_owned());
        let _current = context.clone().attach();
        let packed = carry::behind_attributes(packed, &self.headers(&context));
        let result = self.inner.req_packed_commands(&packed, offset, count);
        end(&context, &result);
        result
    }

    fn get_db(&self) -> i64 {
        self.inner.get_db()
    }

    fn check_connection(&mut self) -> bool {
        self.inner.check_connection()
    }

    fn is_open(&self) -> bool {
        self.inner.is_open()
    }
}
