import java.util.concurrent.CompletionStage;

/** The commands of the client tests, as one library sends them in the current context. */
interface Library extends AutoCloseable {
  /** SET, GET, a pipeline of APPEND and STRLEN, a transaction of GETRANGE. */
  Replies handle(String key) throws Exception;

  /** One of many that are under way at once. */
  CompletionStage<?> set(String key);

  void exists(String key);

  /** Whether the server has said that it takes contexts. */
  boolean advertised();

  record Replies(String value, long appended, long length, String first) {}
}
