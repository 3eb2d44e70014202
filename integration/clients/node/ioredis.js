"use strict";
// Joins ioredis's commands to the caller's OpenTelemetry trace, if the server understands it.

const { context, trace } = require("@opentelemetry/api");
const { advertises, attributeOf, headersOf } = require("./context");

/** A command's span, by the command's arguments: the instrumentation does not make it the current one. */
const spans = new WeakMap();

/** For IORedisInstrumentation's configuration: so that a command carries the span that was made for it. */
function requestHook(span, { cmdArgs }) {
  spans.set(cmdArgs, span);
}

/**
 * Makes a client's commands carry the context in which they are called; gives the client back. To be called before the client
 * has connected, so directly on `new Redis(...)`; ioredis asks the server with HELLO if it speaks RESP3 (version 6 does by itself).
 */
function traceContext(redis) {
  let takesContext = false;
  const carrying = new WeakSet();
  const sendCommand = redis.sendCommand;
  redis.sendCommand = function (command, stream) {
    if (command.name === "hello") {
      takesContext = false;
      command.promise.then((reply) => (takesContext = advertises(reply)), () => {});
    } else if (!carrying.has(command)) {
      // A command comes here again when it has waited for a connection.
      carrying.add(command);
      carry(command, context.active(), () => takesContext);
    }
    return sendCommand.call(this, command, stream);
  };
  return redis;
}

function carry(command, within, takesContext) {
  const toWritable = command.toWritable;
  command.toWritable = function (socket) {
    const written = toWritable.call(this, socket);
    if (!takesContext()) return written;
    const span = spans.get(this.args);
    const headers = headersOf(span ? trace.setSpan(within, span) : within);
    if (!headers) return written;
    const attribute = attributeOf(headers);
    return typeof written === "string" ? attribute + written : Buffer.concat([Buffer.from(attribute), written]);
  };
}

module.exports = { requestHook, traceContext };
