"use strict";
// What both helpers share: the context as a command carries it, and the server's word that it may.

const { propagation } = require("@opentelemetry/api");

/** What of the propagators' headers a command may carry. */
const CARRIED = ["traceparent", "tracestate", "baggage"];

/** The headers of a context; none without a span. */
function headersOf(context) {
  const headers = {};
  propagation.inject(context, headers);
  return headers.traceparent ? headers : undefined;
}

/** Headers as a RESP attribute, to stand in front of a command. */
function attributeOf(headers) {
  const pairs = CARRIED.filter((name) => headers[name]).map((name) => [name, headers[name]]);
  const bulk = (text) => `$${Buffer.byteLength(text)}\r\n${text}\r\n`;
  return `|${pairs.length}\r\n` + pairs.flat().map(bulk).join("");
}

/** Whether a reply to HELLO, a map or a flat list of pairs, says that the server takes contexts. */
function advertises(hello) {
  if (hello instanceof Map) return hello.has("trace-context");
  if (Array.isArray(hello)) return hello.some((name, at) => at % 2 === 0 && String(name) === "trace-context");
  return typeof hello === "object" && hello !== null && "trace-context" in hello;
}

module.exports = { advertises, attributeOf, headersOf };
