"use strict";
// The program of the client tests: sends commands within spans through an instrumented library, prints what it did.
//
//     node traced-client.js ioredis|redis REDIS_PORT OTLP_ENDPOINT KEY REQUESTS

const { ROOT_CONTEXT, propagation, trace } = require("@opentelemetry/api");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-grpc");
const { registerInstrumentations } = require("@opentelemetry/instrumentation");
const { IORedisInstrumentation } = require("@opentelemetry/instrumentation-ioredis");
const { RedisInstrumentation } = require("@opentelemetry/instrumentation-redis");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BatchSpanProcessor, NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");
const { requestHook, traceContext } = require("ferrite-tracing/ioredis");
const { RedisContextInstrumentation } = require("ferrite-tracing/redis");

const [library, port, endpoint, key, requests] = process.argv.slice(2);

const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": `${library}-client` }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: endpoint }))],
});
provider.register();
registerInstrumentations({
  instrumentations: [
    new IORedisInstrumentation({ requestHook }),
    new RedisContextInstrumentation(),
    new RedisInstrumentation(),
  ],
});
const tracer = trace.getTracer("test");

/** The same commands for either library. */
const libraries = {
  async ioredis() {
    const Redis = require("ioredis");
    const client = traceContext(new Redis({ host: "127.0.0.1", port }));
    return {
      set: (name, value) => client.set(name, value),
      get: () => client.get(key),
      pipeline: async () => (await client.pipeline().append(key, "-more").strlen(key).exec()).map(([, reply]) => reply),
      transaction: async () => (await client.multi().getrange(key, 0, 0).exec()).map(([, reply]) => reply),
      exists: () => client.exists(key),
      hello: () => client.call("HELLO"),
      quit: () => client.quit(),
    };
  },
  async redis() {
    const client = require("redis").createClient({ socket: { host: "127.0.0.1", port } });
    await client.connect();
    return {
      set: (name, value) => client.set(name, value),
      get: () => client.get(key),
      pipeline: () => client.multi().append(key, "-more").strLen(key).execAsPipeline(),
      transaction: () => client.multi().getRange(key, 0, 0).exec(),
      exists: () => client.exists(key),
      hello: () => client.sendCommand(["HELLO"]),
      quit: () => client.close(),
    };
  },
};

const ids = (span) => [span.spanContext().traceId, span.spanContext().spanId];

/** Runs work within a span that is the root of a trace, with baggage of which the server is to show the first member. */
function within(name, key, work) {
  const baggage = propagation.createBaggage({ "request.key": { value: key }, secret: { value: "x" } });
  return tracer.startActiveSpan(name, { root: true }, propagation.setBaggage(ROOT_CONTEXT, baggage), async (span) => {
    try {
      return await work(span);
    } finally {
      span.end();
    }
  });
}

async function main() {
  const client = await libraries[library]();
  const handled = await within("handle-request", key, async (span) => {
    await client.set(key, "value");
    const value = await client.get();
    return { request: ids(span), value, replies: [...(await client.pipeline()), ...(await client.transaction())] };
  });
  // Outside of it.
  await client.exists();
  const hello = await client.hello();

  const one = (_, number) => {
    const name = `${key}:${number}`;
    return within("request", name, async (span) => {
      await client.set(name, String(number));
      return [...ids(span), name];
    });
  };
  const done = await Promise.all(Array.from({ length: Number(requests) }, one));
  await client.quit();
  await provider.shutdown();

  const advertised = JSON.stringify(hello instanceof Map ? [...hello.keys()] : hello).includes("trace-context");
  console.log(JSON.stringify({ advertised, ...handled, requests: done }));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
