"use strict";
// Joins node-redis's commands to the caller's OpenTelemetry trace, if the server understands it.

const { context } = require("@opentelemetry/api");
const { InstrumentationBase, InstrumentationNodeModuleDefinition, InstrumentationNodeModuleFile } =
  require("@opentelemetry/instrumentation");
const { advertises, headersOf } = require("./context");

/**
 * Registered in front of RedisInstrumentation, so that it sees the span that the latter makes current:
 *
 *     registerInstrumentations({ instrumentations: [new RedisContextInstrumentation(), new RedisInstrumentation()] });
 *
 * All commands pass the client's queue as arguments, so the context travels in OTEL.TRACE. The client asks the
 * server with HELLO if it speaks RESP3 (version 6 does by itself); what is called before it has connected carries nothing.
 */
class RedisContextInstrumentation extends InstrumentationBase {
  constructor(config = {}) {
    super("ferrite-tracing", "1.0.0", config);
  }

  init() {
    const versions = [">=5 <7"];
    const file = (name, member, wrapper) =>
      new InstrumentationNodeModuleFile(
        `@redis/client/dist/lib/${name}.js`,
        versions,
        (module) => (this._wrap(module.default.prototype, member, wrapper), module),
        (module) => module && this._unwrap(module.default.prototype, member),
      );
    return [
      new InstrumentationNodeModuleDefinition("@redis/client", versions, (module) => module, () => {}, [
        file("multi-command", "addCommand", remembering),
        file("client/commands-queue", "addCommand", carrying),
      ]),
    ];
  }
}

/** The contexts of commands that wait for their `exec`, by their arguments. */
const contexts = new WeakMap();

function remembering(addCommand) {
  return function (args, ...rest) {
    contexts.set(args, context.active());
    return addCommand.call(this, args, ...rest);
  };
}

/** Queues whose server takes contexts. */
const taking = new WeakSet();

function carrying(addCommand) {
  return function (args, options) {
    if (args[0] === "HELLO") {
      taking.delete(this);
      const answer = addCommand.call(this, args, options);
      answer.then((reply) => advertises(reply) && taking.add(this), () => {});
      return answer;
    }
    const headers = taking.has(this) ? headersOf(contexts.get(args) ?? context.active()) : undefined;
    return addCommand.call(this, headers ? wrapped(headers, args) : args, options);
  };
}

/** Their order tells the headers apart: a baggage stands behind a tracestate, if only an empty one. */
function wrapped({ traceparent, tracestate = "", baggage = "" }, args) {
  const headers = [traceparent, tracestate, baggage];
  while (!headers.at(-1)) headers.pop();
  return ["OTEL.TRACE", ...headers, ...args];
}

module.exports = { RedisContextInstrumentation };
