package io.ferrite.tracing.lettuce;

import io.lettuce.core.tracing.TraceContext;
import io.lettuce.core.tracing.TraceContextProvider;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.ContextKey;
import io.opentelemetry.context.Scope;

/** The context in which a command was called, and then the span that the instrumentation made for it. */
final class CallersContext implements TraceContext {
  private static final ContextKey<CallersContext> KEY = ContextKey.named("ferrite-callers-context");

  private final Context caller;
  private final TraceContext instrumentation;
  // Made by the connection's event loop before it encodes the command; the instrumentation may be asked from anywhere.
  private volatile Span span;

  /** Here and now. What the instrumentation remembers of it leads back to this. */
  CallersContext(TraceContextProvider instrumentation) {
    caller = Context.current();
    try (Scope current = caller.with(KEY, this).makeCurrent()) {
      this.instrumentation = instrumentation.getTraceContext();
    }
  }

  /** The one that the instrumentation begins a span in; {@code null} if it is none of ours. */
  static CallersContext of(Context context) {
    return context.get(KEY);
  }

  TraceContext instrumentation() {
    return instrumentation;
  }

  void spanStarted(Span span) {
    this.span = span;
  }

  /** With the command's own span once there is one. */
  Context ofTheCommand() {
    Span started = span;
    return started == null ? caller : caller.with(started);
  }
}
