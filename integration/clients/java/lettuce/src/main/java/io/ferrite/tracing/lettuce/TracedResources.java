package io.ferrite.tracing.lettuce;

import io.lettuce.core.protocol.CommandEncoder;
import io.lettuce.core.resource.ClientResources;
import io.lettuce.core.resource.NettyCustomizer;
import io.lettuce.core.tracing.Tracing;
import io.netty.channel.Channel;
import io.netty.channel.ChannelPipeline;
import io.opentelemetry.api.OpenTelemetry;
import io.opentelemetry.context.propagation.TextMapPropagator;
import io.opentelemetry.instrumentation.lettuce.v5_1.LettuceTelemetry;

/**
 * Joins Lettuce's commands to the caller's OpenTelemetry trace, if the server understands it.
 *
 * <pre>
 * RedisClient client = RedisClient.create(TracedResources.builder(openTelemetry).build(), "redis://localhost");
 * </pre>
 *
 * OpenTelemetry's own instrumentation makes the client spans; each command carries the context of its span. Ferrite says in the
 * reply to HELLO, which Lettuce sends for RESP3, that it takes contexts. A server that does not is sent plain commands.
 */
public final class TracedResources {
  private TracedResources() {}

  /** Resources for any client, with tracing and a Netty customizer of this helper's. */
  public static ClientResources.Builder builder(OpenTelemetry openTelemetry) {
    return ClientResources.builder().tracing(tracing(openTelemetry)).nettyCustomizer(customizer(openTelemetry));
  }

  /** For resources that are made elsewhere: the spans. */
  public static Tracing tracing(OpenTelemetry openTelemetry) {
    return new CallersTracing(LettuceTelemetry.create(new NotingOpenTelemetry(openTelemetry)).newTracing());
  }

  /** For resources that have a customizer already, which then calls this one: the carrier. */
  public static NettyCustomizer customizer(OpenTelemetry openTelemetry) {
    TextMapPropagator propagator = openTelemetry.getPropagators().getTextMapPropagator();
    return new NettyCustomizer() {
      @Override
      public void afterChannelInitialized(Channel channel) {
        ChannelPipeline pipeline = channel.pipeline();
        String encoder = pipeline.context(CommandEncoder.class).name();
        pipeline.addAfter(encoder, "ferrite-tracing", new CarryingHandler(propagator));
      }
    };
  }
}
