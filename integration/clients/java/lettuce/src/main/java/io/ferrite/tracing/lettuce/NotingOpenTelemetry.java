package io.ferrite.tracing.lettuce;

import io.opentelemetry.api.OpenTelemetry;
import io.opentelemetry.api.logs.LoggerProvider;
import io.opentelemetry.api.metrics.MeterProvider;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.api.trace.TracerBuilder;
import io.opentelemetry.api.trace.TracerProvider;
import io.opentelemetry.context.propagation.ContextPropagators;

/** An OpenTelemetry that tells each {@link CallersContext} of the span that is started in it: the instrumentation does not. */
final class NotingOpenTelemetry implements OpenTelemetry {
  private final OpenTelemetry real;

  NotingOpenTelemetry(OpenTelemetry real) {
    this.real = real;
  }

  @Override
  public TracerProvider getTracerProvider() {
    return new TracerProvider() {
      @Override
      public Tracer get(String name) {
        return tracerBuilder(name).build();
      }

      @Override
      public Tracer get(String name, String version) {
        return tracerBuilder(name).setInstrumentationVersion(version).build();
      }

      @Override
      public TracerBuilder tracerBuilder(String name) {
        return new NotingTracerBuilder(real.tracerBuilder(name));
      }
    };
  }

  @Override
  public MeterProvider getMeterProvider() {
    return real.getMeterProvider();
  }

  @Override
  public LoggerProvider getLogsBridge() {
    return real.getLogsBridge();
  }

  @Override
  public ContextPropagators getPropagators() {
    return real.getPropagators();
  }

  private record NotingTracerBuilder(TracerBuilder real) implements TracerBuilder {
    @Override
    public TracerBuilder setSchemaUrl(String schemaUrl) {
      real.setSchemaUrl(schemaUrl);
      return this;
    }

    @Override
    public TracerBuilder setInstrumentationVersion(String version) {
      real.setInstrumentationVersion(version);
      return this;
    }

    @Override
    public Tracer build() {
      Tracer tracer = real.build();
      return name -> new NotingSpanBuilder(tracer.spanBuilder(name));
    }
  }
}
