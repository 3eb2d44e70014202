// The README's lines, as a program in TypeScript would have them: `tsc --noEmit` reads this, nothing runs it.
import { IORedisInstrumentation } from "@opentelemetry/instrumentation-ioredis";
import { RedisInstrumentation } from "@opentelemetry/instrumentation-redis";
import { registerInstrumentations } from "@opentelemetry/instrumentation";
import { requestHook, traceContext } from "ferrite-tracing/ioredis";
import { RedisContextInstrumentation } from "ferrite-tracing/redis";
import { Redis } from "ioredis";

registerInstrumentations({
  instrumentations: [
    new IORedisInstrumentation({ requestHook }),
    new RedisContextInstrumentation(),
    new RedisInstrumentation(),
  ],
});
export const client: Redis = traceContext(new Redis({ host: "localhost", port: 6379 }));
// @ts-expect-error: not a client
traceContext("localhost");
