import type { Span } from "@opentelemetry/api";
import type { Redis } from "ioredis";

/** For IORedisInstrumentation's configuration: so that a command carries the span that was made for it. */
export function requestHook(span: Span, request: { cmdArgs: Array<string | Buffer | number | any[]> }): void;

/**
 * Makes a client's commands carry the context in which they are called; gives the client back. To be called before the client
 * has connected, so directly on `new Redis(...)`.
 */
export function traceContext<Client extends Redis>(redis: Client): Client;
