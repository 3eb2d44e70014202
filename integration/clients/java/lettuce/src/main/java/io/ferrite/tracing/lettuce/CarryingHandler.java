package io.ferrite.tracing.lettuce;

import io.lettuce.core.protocol.CommandType;
import io.lettuce.core.protocol.CommandWrapper;
import io.lettuce.core.protocol.CompleteableCommand;
import io.lettuce.core.protocol.RedisCommand;
import io.lettuce.core.protocol.TracedCommand;
import io.netty.buffer.ByteBuf;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelOutboundHandlerAdapter;
import io.netty.channel.ChannelPromise;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.TextMapPropagator;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Stands before the encoder of one connection: puts a command's context in front of it, as a RESP attribute. */
final class CarryingHandler extends ChannelOutboundHandlerAdapter {
  /** What of the propagators' headers a command may carry. */
  private static final List<String> CARRIED = List.of("traceparent", "tracestate", "baggage");

  /** In HELLO's reply: the server takes contexts. */
  private static final String ADVERTISED = "trace-context";

  private final TextMapPropagator propagator;
  // Read and written by the connection's event loop alone.
  private boolean takesContext;

  CarryingHandler(TextMapPropagator propagator) {
    this.propagator = propagator;
  }

  @Override
  public void write(ChannelHandlerContext context, Object message, ChannelPromise promise) {
    Object carrying = message;
    if (message instanceof RedisCommand<?, ?, ?> command) {
      carrying = carrying(command);
    } else if (message instanceof Collection<?> commands) {
      List<Object> all = new ArrayList<>(commands.size());
      commands.forEach(one -> all.add(one instanceof RedisCommand<?, ?, ?> command ? carrying(command) : one));
      carrying = all;
    }
    context.write(carrying, promise);
  }

  private RedisCommand<?, ?, ?> carrying(RedisCommand<?, ?, ?> command) {
    if (command.getType() == CommandType.HELLO) {
      if (command instanceof CompleteableCommand<?> hello) {
        hello.onComplete((reply, failure) -> {
          if (reply instanceof Map<?, ?> pairs) {
            // Lettuce passes an empty list over, and so takes the name behind `modules` for its value.
            takesContext = pairs.containsKey(ADVERTISED) || pairs.containsValue(ADVERTISED);
          }
        });
      }
      return command;
    }
    TracedCommand<?, ?, ?> traced = takesContext ? CommandWrapper.unwrap(command, TracedCommand.class) : null;
    if (traced == null || !(traced.getTraceContext() instanceof CallersContext callers)) {
      return command;
    }
    byte[] attribute = attribute(callers.ofTheCommand());
    return attribute.length == 0 ? command : new Carrying<>(command, attribute);
  }

  /** Empty without a span. */
  private byte[] attribute(Context context) {
    Map<String, String> headers = new HashMap<>();
    propagator.inject(context, headers, Map::put);
    if (!headers.containsKey("traceparent")) {
      return new byte[0];
    }
    headers.values().removeIf(String::isEmpty);
    headers.keySet().retainAll(CARRIED);
    ByteArrayOutputStream attribute = new ByteArrayOutputStream();
    attribute.writeBytes(("|" + headers.size() + "\r\n").getBytes(StandardCharsets.US_ASCII));
    headers.forEach((name, value) -> {
      bulk(name, attribute);
      bulk(value, attribute);
    });
    return attribute.toByteArray();
  }

  private static void bulk(String text, ByteArrayOutputStream out) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    out.writeBytes(("$" + bytes.length + "\r\n").getBytes(StandardCharsets.US_ASCII));
    out.writeBytes(bytes);
    out.writeBytes(new byte[] {'\r', '\n'});
  }

  /** The command, behind its attribute. */
  private static final class Carrying<K, V, T> extends CommandWrapper<K, V, T> {
    private final byte[] attribute;

    Carrying(RedisCommand<K, V, T> command, byte[] attribute) {
      super(command);
      this.attribute = attribute;
    }

    @Override
    public void encode(ByteBuf buffer) {
      buffer.writeBytes(attribute);
      super.encode(buffer);
    }
  }
}
