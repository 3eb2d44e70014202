package io.ferrite.tracing.jedis;

import io.opentelemetry.api.GlobalOpenTelemetry;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.Scope;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.function.Supplier;
import redis.clients.jedis.CommandArguments;
import redis.clients.jedis.CommandObject;
import redis.clients.jedis.Connection;
import redis.clients.jedis.JedisClientConfig;
import redis.clients.jedis.JedisSocketFactory;
import redis.clients.jedis.args.Rawable;
import redis.clients.jedis.commands.ProtocolCommand;
import redis.clients.jedis.exceptions.JedisDataException;

/**
 * A connection whose commands are client spans and carry their context, if the server says in HELLO's reply that it takes
 * contexts; else they are sent as they are. Jedis writes arguments and nothing before them, so the context travels in
 * OTEL.TRACE.
 */
public class TracedConnection extends Connection {
  private static final ProtocolCommand OTEL_TRACE = () -> "OTEL.TRACE".getBytes(StandardCharsets.UTF_8);

  // What the superclass's constructor sends to set the connection up is neither a span nor carries anything.
  private final boolean ready;
  private boolean takesContext;
  private boolean executing;

  public TracedConnection(JedisSocketFactory socketFactory, JedisClientConfig clientConfig) {
    super(socketFactory, clientConfig);
    try {
      takesContext = hello().containsKey("trace-context");
    } catch (JedisDataException unknown) {
      takesContext = false; // Redis before version 6
    }
    ready = true;
  }

  /** Whether contexts are sent. */
  public boolean serverTakesContext() {
    return takesContext;
  }

  @Override
  public Object executeCommand(CommandArguments arguments) {
    return execute(arguments, () -> super.executeCommand(arguments));
  }

  @Override
  public <T> T executeCommand(CommandObject<T> command) {
    return execute(command.getArguments(), () -> super.executeCommand(command));
  }

  /** Pipelines and transactions send their commands one by one, and read the replies later. */
  @Override
  public void sendCommand(CommandArguments arguments) {
    if (!ready || executing) {
      super.sendCommand(ready ? carrying(arguments) : arguments);
      return;
    }
    execute(arguments, () -> {
      super.sendCommand(carrying(arguments));
      return null;
    });
  }

  private <T> T execute(CommandArguments arguments, Supplier<T> command) {
    if (!ready || executing) {
      return command.get();
    }
    String name = new String(arguments.getCommand().getRaw(), StandardCharsets.UTF_8);
    Span span = GlobalOpenTelemetry.getTracer("io.ferrite.jedis-tracing").spanBuilder(name)
        .setSpanKind(SpanKind.CLIENT)
        .setAttribute("db.system.name", "redis")
        .setAttribute("db.operation.name", name)
        .startSpan();
    executing = true;
    try (Scope current = span.makeCurrent()) {
      return command.get();
    } catch (RuntimeException failure) {
      span.setStatus(StatusCode.ERROR, String.valueOf(failure.getMessage()));
      throw failure;
    } finally {
      executing = false;
      span.end();
    }
  }

  private CommandArguments carrying(CommandArguments arguments) {
    if (!takesContext) {
      return arguments;
    }
    Map<String, String> headers = new HashMap<>();
    GlobalOpenTelemetry.getPropagators().getTextMapPropagator().inject(Context.current(), headers, Map::put);
    if (!headers.containsKey("traceparent")) {
      return arguments;
    }
    CommandArguments carrying = new CommandArguments(OTEL_TRACE).add(headers.get("traceparent"));
    String tracestate = headers.getOrDefault("tracestate", "");
    String baggage = headers.getOrDefault("baggage", "");
    // Their order tells them apart: a baggage stands behind a tracestate, if only an empty one.
    if (!tracestate.isEmpty() || !baggage.isEmpty()) {
      carrying.add(tracestate);
    }
    if (!baggage.isEmpty()) {
      carrying.add(baggage);
    }
    for (Rawable argument : arguments) {
      carrying.add(argument);
    }
    return carrying;
  }
}
