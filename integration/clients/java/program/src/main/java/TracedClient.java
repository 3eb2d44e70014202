import io.opentelemetry.api.GlobalOpenTelemetry;
import io.opentelemetry.api.OpenTelemetry;
import io.opentelemetry.api.baggage.Baggage;
import io.opentelemetry.api.baggage.propagation.W3CBaggagePropagator;
import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.Scope;
import io.opentelemetry.context.propagation.ContextPropagators;
import io.opentelemetry.context.propagation.TextMapPropagator;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * The program of the client tests: sends commands within spans, prints what it did.
 *
 * <pre>java [-javaagent:… -Dwith.agent=true] TracedClient jedis|lettuce REDIS_PORT OTLP_ENDPOINT KEY REQUESTS</pre>
 */
public class TracedClient {
  public static void main(String[] arguments) throws Exception {
    String name = arguments[0];
    int port = Integer.parseInt(arguments[1]);
    String key = arguments[3];
    int requests = Integer.parseInt(arguments[4]);

    // The Java agent, if there is one, has an SDK of its own, and exports at the end of the program.
    OpenTelemetrySdk sdk = Boolean.getBoolean("with.agent") ? null : sdk(name + "-client", arguments[2]);
    OpenTelemetry openTelemetry = GlobalOpenTelemetry.get();
    Tracer tracer = openTelemetry.getTracer("test");

    Span request = tracer.spanBuilder("handle-request").setNoParent().startSpan();
    Library.Replies replies;
    boolean advertised;
    List<String> done = new ArrayList<>();
    try (Library library = name.equals("jedis") ? new JedisLibrary(port) : new LettuceLibrary(port, openTelemetry)) {
      try (Scope current = carrying(request, key).makeCurrent()) {
        replies = library.handle(key);
      } finally {
        request.end();
      }
      // Outside of it.
      library.exists(key);
      advertised = library.advertised();

      List<CompletableFuture<String>> underWay = new ArrayList<>();
      for (int number = 0; number < requests; number++) {
        String keyOfOne = key + ":" + number;
        Span span = tracer.spanBuilder("request").setNoParent().startSpan();
        try (Scope current = carrying(span, keyOfOne).makeCurrent()) {
          underWay.add(library.set(keyOfOne)
              .whenComplete((reply, failure) -> span.end())
              .thenApply(reply -> "[" + ids(span) + ",\"" + keyOfOne + "\"]")
              .toCompletableFuture());
        }
      }
      for (CompletableFuture<String> one : underWay) {
        done.add(one.get());
      }
    }
    if (sdk != null) {
      sdk.getSdkTracerProvider().shutdown().join(30, TimeUnit.SECONDS);
    }

    System.out.printf("{\"advertised\":%b,\"request\":[%s],\"value\":\"%s\",\"replies\":[%d,%d,\"%s\"],\"requests\":[%s]}%n",
        advertised, ids(request), replies.value(), replies.appended(), replies.length(), replies.first(),
        String.join(",", done));
  }

  private static OpenTelemetrySdk sdk(String service, String endpoint) {
    OtlpGrpcSpanExporter exporter = OtlpGrpcSpanExporter.builder().setEndpoint(endpoint).build();
    SdkTracerProvider provider = SdkTracerProvider.builder()
        .setResource(Resource.create(Attributes.of(AttributeKey.stringKey("service.name"), service)))
        .addSpanProcessor(BatchSpanProcessor.builder(exporter).setMaxQueueSize(65536).build())
        .build();
    return OpenTelemetrySdk.builder()
        .setTracerProvider(provider)
        .setPropagators(ContextPropagators.create(TextMapPropagator.composite(
            W3CTraceContextPropagator.getInstance(), W3CBaggagePropagator.getInstance())))
        .buildAndRegisterGlobal();
  }

  /** The span with baggage, of which the server is to show the first member. */
  private static Context carrying(Span span, String key) {
    return Context.root().with(span).with(Baggage.builder().put("request.key", key).put("secret", "x").build());
  }

  private static String ids(Span span) {
    return "\"" + span.getSpanContext().getTraceId() + "\",\"" + span.getSpanContext().getSpanId() + "\"";
  }
}
