import io.ferrite.tracing.lettuce.TracedResources;
import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisFuture;
import io.lettuce.core.RedisURI;
import io.lettuce.core.api.StatefulRedisConnection;
import io.lettuce.core.api.async.RedisAsyncCommands;
import io.lettuce.core.api.sync.RedisCommands;
import io.lettuce.core.codec.StringCodec;
import io.lettuce.core.output.GenericMapOutput;
import io.lettuce.core.protocol.CommandType;
import io.lettuce.core.resource.ClientResources;
import io.opentelemetry.api.OpenTelemetry;
import java.time.Duration;
import java.util.concurrent.CompletionStage;

/** Lettuce: one connection, used in all its ways for a request and asynchronously for the many. */
final class LettuceLibrary implements Library {
  private final ClientResources resources;
  private final RedisClient client;
  private final StatefulRedisConnection<String, String> connection;

  LettuceLibrary(int port, OpenTelemetry openTelemetry) {
    resources = TracedResources.builder(openTelemetry).build();
    // A busy machine may need longer than the library waits for a reply.
    client = RedisClient.create(
        resources, RedisURI.builder().withHost("127.0.0.1").withPort(port).withTimeout(Duration.ofMinutes(1)).build());
    connection = client.connect();
  }

  @Override
  public Replies handle(String key) throws Exception {
    RedisCommands<String, String> commands = connection.sync();
    commands.set(key, "value");
    String value = connection.reactive().get(key).block();
    RedisAsyncCommands<String, String> pipeline = connection.async();
    connection.setAutoFlushCommands(false);
    RedisFuture<Long> appended = pipeline.append(key, "-more");
    RedisFuture<Long> length = pipeline.strlen(key);
    connection.flushCommands();
    connection.setAutoFlushCommands(true);
    appended.get();
    length.get();
    commands.multi();
    commands.getrange(key, 0, 0);
    String first = commands.exec().get(0);
    return new Replies(value, appended.get(), length.get(), first);
  }

  @Override
  public CompletionStage<?> set(String key) {
    return connection.async().set(key, "v");
  }

  @Override
  public void exists(String key) {
    connection.sync().exists(key);
  }

  @Override
  public boolean advertised() {
    Object hello = connection.sync().dispatch(CommandType.HELLO, new GenericMapOutput<>(StringCodec.UTF8));
    return hello.toString().contains("trace-context");
  }

  @Override
  public void close() {
    client.shutdown();
    resources.shutdown();
  }
}
