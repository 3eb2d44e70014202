package io.ferrite.tracing.jedis;

import org.apache.commons.pool2.PooledObject;
import org.apache.commons.pool2.impl.DefaultPooledObject;
import redis.clients.jedis.Connection;
import redis.clients.jedis.ConnectionFactory;
import redis.clients.jedis.DefaultJedisSocketFactory;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.JedisClientConfig;
import redis.clients.jedis.JedisSocketFactory;

/** Makes the connections of a pool {@link TracedConnection}s. */
public class TracedConnectionFactory extends ConnectionFactory {
  private final JedisSocketFactory socketFactory;
  private final JedisClientConfig clientConfig;

  public TracedConnectionFactory(HostAndPort hostAndPort, JedisClientConfig clientConfig) {
    this(new DefaultJedisSocketFactory(hostAndPort, clientConfig), clientConfig);
  }

  private TracedConnectionFactory(JedisSocketFactory socketFactory, JedisClientConfig clientConfig) {
    super(socketFactory, clientConfig);
    this.socketFactory = socketFactory;
    this.clientConfig = clientConfig;
  }

  @Override
  public PooledObject<Connection> makeObject() {
    return new DefaultPooledObject<>(new TracedConnection(socketFactory, clientConfig));
  }
}
