package io.ferrite.tracing.lettuce;

import io.lettuce.core.tracing.TraceContext;
import io.lettuce.core.tracing.TraceContextProvider;
import io.lettuce.core.tracing.Tracer;
import io.lettuce.core.tracing.TracerProvider;
import io.lettuce.core.tracing.Tracing;
import java.net.SocketAddress;

/** The instrumentation, but that each command keeps a {@link CallersContext}. */
final class CallersTracing implements Tracing {
  private final Tracing instrumentation;
  private final Tracer tracer;

  CallersTracing(Tracing instrumentation) {
    this.instrumentation = instrumentation;
    Tracer itsTracer = instrumentation.getTracerProvider().getTracer();
    tracer = new Tracer() {
      @Override
      public Span nextSpan() {
        return itsTracer.nextSpan();
      }

      @Override
      public Span nextSpan(TraceContext context) {
        return itsTracer.nextSpan(context instanceof CallersContext callers ? callers.instrumentation() : context);
      }
    };
  }

  @Override
  public TracerProvider getTracerProvider() {
    return () -> tracer;
  }

  @Override
  public TraceContextProvider initialTraceContextProvider() {
    return () -> new CallersContext(instrumentation.initialTraceContextProvider());
  }

  @Override
  public boolean isEnabled() {
    return instrumentation.isEnabled();
  }

  @Override
  public boolean includeCommandArgsInSpanTags() {
    return instrumentation.includeCommandArgsInSpanTags();
  }

  @Override
  public Endpoint createEndpoint(SocketAddress address) {
    return instrumentation.createEndpoint(address);
  }
}
