package io.ferrite.tracing.lettuce;

import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanBuilder;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.context.Context;
import java.util.concurrent.TimeUnit;

/** The builder of a span, which tells the {@link CallersContext} that is its parent of it. */
final class NotingSpanBuilder implements SpanBuilder {
  private final SpanBuilder real;
  private CallersContext callers;

  NotingSpanBuilder(SpanBuilder real) {
    this.real = real;
  }

  @Override
  public Span startSpan() {
    Span span = real.startSpan();
    if (callers != null) {
      callers.spanStarted(span);
    }
    return span;
  }

  @Override
  public SpanBuilder setParent(Context context) {
    callers = CallersContext.of(context);
    real.setParent(context);
    return this;
  }

  @Override
  public SpanBuilder setNoParent() {
    callers = null;
    real.setNoParent();
    return this;
  }

  @Override
  public SpanBuilder addLink(SpanContext context) {
    real.addLink(context);
    return this;
  }

  @Override
  public SpanBuilder addLink(SpanContext context, Attributes attributes) {
    real.addLink(context, attributes);
    return this;
  }

  @Override
  public SpanBuilder setAttribute(String key, String value) {
    real.setAttribute(key, value);
    return this;
  }

  @Override
  public SpanBuilder setAttribute(String key, long value) {
    real.setAttribute(key, value);
    return this;
  }

  @Override
  public SpanBuilder setAttribute(String key, double value) {
    real.setAttribute(key, value);
    return this;
  }

  @Override
  public SpanBuilder setAttribute(String key, boolean value) {
    real.setAttribute(key, value);
    return this;
  }

  @Override
  public <T> SpanBuilder setAttribute(AttributeKey<T> key, T value) {
    real.setAttribute(key, value);
    return this;
  }

  @Override
  public SpanBuilder setSpanKind(SpanKind kind) {
    real.setSpanKind(kind);
    return this;
  }

  @Override
  public SpanBuilder setStartTimestamp(long time, TimeUnit unit) {
    real.setStartTimestamp(time, unit);
    return this;
  }
}
