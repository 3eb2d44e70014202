"use strict";
// An application whose commands are in its own trace, from its span to Ferrite's storage, with the tenant as baggage.
//
//     npm install ioredis @opentelemetry/{api,instrumentation,resources,sdk-trace-node} \
//         @opentelemetry/exporter-trace-otlp-grpc @opentelemetry/instrumentation-ioredis integration/clients/node
//     node app.js
//
// FERRITE_URL and OTEL_EXPORTER_OTLP_ENDPOINT say where Ferrite and the Collector are, if not on this machine.

const { context, propagation, trace } = require("@opentelemetry/api");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-grpc");
const { registerInstrumentations } = require("@opentelemetry/instrumentation");
const { IORedisInstrumentation } = require("@opentelemetry/instrumentation-ioredis");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BatchSpanProcessor, NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");
const { requestHook, traceContext } = require("ferrite-tracing/ioredis");

// Set up OTel tracing; the instrumentation for ioredis is one of its own, before the library is loaded
const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": "my-node-app" }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
});
provider.register();
registerInstrumentations({ instrumentations: [new IORedisInstrumentation({ requestHook })] });

const Redis = require("ioredis");
const client = traceContext(new Redis(process.env.FERRITE_URL ?? "redis://localhost:6379"));

const tracer = trace.getTracer("my-node-app");

async function handleRequest(userId) {
  return tracer.startActiveSpan("handle-user-request", async (span) => {
    try {
      span.setAttribute("user.id", userId);

      await client.set(`user:${userId}:session`, "session-data", "EX", 3600);
      const session = await client.get(`user:${userId}:session`);
      await client.hset(`user:${userId}:profile`, {
        name: "Alice",
        email: "alice@example.com",
      });

      return session;
    } finally {
      span.end();
    }
  });
}

async function main() {
  const baggage = propagation.createBaggage({
    "tenant.id": { value: "acme-corp" },
    "tenant.tier": { value: "enterprise" },
  });
  const tenant = propagation.setBaggage(context.active(), baggage);
  console.log(await context.with(tenant, () => handleRequest("123")));
  await client.quit();
  await provider.shutdown();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
