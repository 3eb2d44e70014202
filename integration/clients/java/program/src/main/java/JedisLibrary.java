import io.ferrite.tracing.jedis.TracedConnection;
import io.ferrite.tracing.jedis.TracedConnectionFactory;
import io.opentelemetry.context.Context;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
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

/** Jedis: threads over a pool of connections. */
final class JedisLibrary implements Library {
  private final ExecutorService threads = Executors.newFixedThreadPool(64);
  private final PooledConnectionProvider connections;
  private final RedisClient client;

  JedisLibrary(int port) {
    // A busy machine may need longer than the library waits for a reply.
    JedisClientConfig patient = DefaultJedisClientConfig.builder().timeoutMillis(60_000).build();
    GenericObjectPoolConfig<Connection> pool = new GenericObjectPoolConfig<>();
    pool.setMaxTotal(16);
    connections =
        new PooledConnectionProvider(new TracedConnectionFactory(new HostAndPort("127.0.0.1", port), patient), pool);
    client = RedisClient.builder().connectionProvider(connections).build();
  }

  @Override
  public Replies handle(String key) {
    client.set(key, "value");
    String value = client.get(key);
    Response<Long> appended;
    Response<Long> length;
    try (AbstractPipeline pipeline = client.pipelined()) {
      appended = pipeline.append(key, "-more");
      length = pipeline.strlen(key);
      pipeline.sync();
    }
    Response<String> first;
    try (AbstractTransaction transaction = client.multi()) {
      first = transaction.getrange(key, 0, 0);
      transaction.exec();
    }
    return new Replies(value, appended.get(), length.get(), first.get());
  }

  @Override
  public CompletionStage<?> set(String key) {
    return CompletableFuture.runAsync(() -> client.set(key, "v"), Context.taskWrapping(threads));
  }

  @Override
  public void exists(String key) {
    client.exists(key);
  }

  @Override
  public boolean advertised() {
    try (Connection connection = connections.getConnection()) {
      return ((TracedConnection) connection).serverTakesContext();
    }
  }

  @Override
  public void close() {
    threads.shutdown();
    client.close();
  }
}
