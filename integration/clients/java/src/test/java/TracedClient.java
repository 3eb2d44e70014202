import io.ferrite.tracing.TracedConnection;
import io.ferrite.tracing.TracedConnectionFactory;
import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Scope;
import io.opentelemetry.context.propagation.ContextPropagators;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.commons.pool2.impl.GenericObjectPoolConfig;
import redis.clients.jedis.AbstractPipeline;
import redis.clients.jedis.AbstractTransaction;
import redis.clients.jedis.Connection;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.JedisClientConfig;
import redis.clients.jedis.RedisClient;
import redis.clients.jedis.Response;
import redis.clients.jedis.providers.PooledConnectionProvider;

/**
 * The program of the client tests: sends commands within spans, prints what it did.
 *
 * <pre>java TracedClient REDIS_PORT OTLP_ENDPOINT KEY REQUESTS</pre>
 */
public class TracedClient {
  public static void main(String[] arguments) throws Exception {
    int port = Integer.parseInt(arguments[0]);
    String key = arguments[2];
    int requests = Integer.parseInt(arguments[3]);

    OtlpGrpcSpanExporter exporter = OtlpGrpcSpanExporter.builder().setEndpoint(arguments[1]).build();
    SdkTracerProvider provider = SdkTracerProvider.builder()
        .setResource(Resource.create(Attributes.of(AttributeKey.stringKey("service.name"), "java-client")))
        .addSpanProcessor(BatchSpanProcessor.builder(exporter).setMaxQueueSize(65536).build())
        .build();
    OpenTelemetrySdk.builder()
        .setTracerProvider(provider)
        .setPropagators(ContextPropagators.create(W3CTraceContextPropagator.getInstance()))
        .buildAndRegisterGlobal();
    Tracer tracer = provider.get("test");

    // A busy machine may need longer than the library waits for a reply.
    JedisClientConfig patient = DefaultJedisClientConfig.builder().timeoutMillis(60_000).build();
    GenericObjectPoolConfig<Connection> pool = new GenericObjectPoolConfig<>();
    pool.setMaxTotal(16);
    PooledConnectionProvider connections =
        new PooledConnectionProvider(new TracedConnectionFactory(new HostAndPort("127.0.0.1", port), patient), pool);
    RedisClient client = RedisClient.builder().connectionProvider(connections).build();

    Span request = tracer.spanBuilder("handle-request").setNoParent().startSpan();
    String value;
    Response<Long> appended;
    Response<Long> length;
    Response<String> first;
    try (Scope current = request.makeCurrent()) {
      client.set(key, "value");
      value = client.get(key);
      try (AbstractPipeline pipeline = client.pipelined()) {
        appended = pipeline.append(key, "-more");
        length = pipeline.strlen(key);
        pipeline.sync();
      }
      try (AbstractTransaction transaction = client.multi()) {
        first = transaction.getrange(key, 0, 0);
        transaction.exec();
      }
    } finally {
      request.end();
    }
    // Outside of it.
    client.exists(key);
    boolean advertised;
    try (Connection connection = connections.getConnection()) {
      advertised = ((TracedConnection) connection).serverTakesContext();
    }

    ExecutorService threads = Executors.newFixedThreadPool(64);
    List<Future<String>> underWay = new ArrayList<>();
    for (int number = 0; number < requests; number++) {
      String name = key + ":" + number;
      underWay.add(threads.submit(() -> {
        Span span = tracer.spanBuilder("request").setNoParent().startSpan();
        try (Scope current = span.makeCurrent()) {
          client.set(name, "v");
        } finally {
          span.end();
        }
        return "[" + ids(span) + ",\"" + name + "\"]";
      }));
    }
    List<String> done = new ArrayList<>();
    for (Future<String> one : underWay) {
      done.add(one.get());
    }
    threads.shutdown();
    client.close();
    provider.shutdown().join(30, TimeUnit.SECONDS);

    System.out.printf("{\"advertised\":%b,\"request\":[%s],\"value\":\"%s\",\"replies\":[%d,%d,\"%s\"],\"requests\":[%s]}%n",
        advertised, ids(request), value, appended.get(), length.get(), first.get(), String.join(",", done));
  }

  private static String ids(Span span) {
    return "\"" + span.getSpanContext().getTraceId() + "\",\"" + span.getSpanContext().getSpanId() + "\"";
  }
}
