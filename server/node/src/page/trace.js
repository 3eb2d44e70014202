// One trace as a waterfall: its spans by their start below their parents, and the attributes and events of the chosen one.

import { clock, duration, empty, get, h } from "./dom.js";

export async function trace(main, id, signal) {
  const { traces } = await get(`traces/${encodeURIComponent(id)}`, signal);
  if (!traces.length) {
    main.replaceChildren(h("div", { class: "head" }, h("h1", {}, "Trace")), empty("This trace is not here any more.",
      "The recorder overwrites its oldest; what SLOWLOG and exemplars name is kept as long as they are."));
    return;
  }
  // A caller's trace may hold many commands, each a tree of its own: the oldest first.
  const trees = traces.map(tree).sort((one, other) => one.start - other.start);
  main.replaceChildren(...trees.map((one) => h("article", {}, show(one, id))));
}

const SPANS = (data) => data.resourceSpans.flatMap((resource) => resource.scopeSpans.flatMap((scope) => scope.spans));
const plain = (value) => value.stringValue ?? value.intValue ?? String(value.boolValue ?? value.doubleValue ?? "");
/** Nanoseconds since the epoch do not fit a number: they are compared as differences to the first. */
const after = (time, base) => Number(BigInt(time) - base);

function tree(data) {
  const spans = SPANS(data);
  const base = spans.reduce((least, span) => (BigInt(span.startTimeUnixNano) < least ? BigInt(span.startTimeUnixNano) : least), BigInt(spans[0].startTimeUnixNano));
  const byId = new Map();
  for (const span of spans) {
    byId.set(span.spanId, {
      ...span, children: [],
      from: after(span.startTimeUnixNano, base), to: after(span.endTimeUnixNano, base),
      values: new Map((span.attributes ?? []).map(({ key, value }) => [key, plain(value)])),
      events: (span.events ?? []).map((event) => ({ ...event, at: after(event.timeUnixNano, base) })),
    });
  }
  let root = null;
  for (const span of byId.values()) {
    const parent = byId.get(span.parentSpanId);
    if (parent) parent.children.push(span);
    else root ??= span;
  }
  const rows = [];
  const walk = (span, depth) => {
    rows.push({ span, depth });
    span.children.sort((one, other) => one.from - other.from || one.to - other.to).forEach((child) => walk(child, depth + 1));
  };
  walk(root, 0);
  return { root, rows, start: Number(base / 1000n) * 1000, end: Math.max(1, ...rows.map(({ span }) => span.to)) };
}

const tierOf = (span) => [...span.values].find(([key]) => key.endsWith(".storage.tier"))?.[1];
const value = (span, ending) => [...span.values].find(([key]) => key.endsWith(ending))?.[1];

function colour(span, depth) {
  if (span.status?.code === 2) return "bad";
  if (depth === 0) return "root";
  return tierOf(span) ?? (span.name.endsWith(".execute") ? "execute" : "plain");
}

function show({ root, rows, start, end }, id) {
  const side = h("aside", { class: "sheet side", "aria-label": "Attributes of the chosen span" });
  const buttons = rows.map(({ span, depth }, at) => {
    const tier = tierOf(span);
    const button = h("button", { type: "button", class: "row", role: "row", "aria-selected": "false", tabindex: at ? "-1" : "0" },
      h("span", { class: "name" }, " ".repeat(depth * 2), span.name, tier ? h("span", { class: "faint" }, ` ${tier}`) : null),
      track(span, depth, end),
      h("span", { class: "n" }, duration(span.to - span.from)));
    button.addEventListener("click", () => choose(at));
    button.addEventListener("focus", () => choose(at));
    return button;
  });
  const choose = (at) => {
    buttons.forEach((button, other) => {
      button.setAttribute("aria-selected", String(other === at));
      button.tabIndex = other === at ? 0 : -1;
    });
    side.replaceChildren(...details(rows[at].span));
  };
  const water = h("div", { class: "sheet water", role: "grid", "aria-label": "Waterfall" },
    h("div", { class: "axis" }, h("span", {}, `${rows.length} spans`), h("span", { class: "ticks" }, [0, 0.25, 0.5, 0.75, 1].map((share) => h("span", {}, duration(end * share)))), h("span", { class: "n" }, "duration")),
    buttons);
  water.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    buttons[Math.max(0, Math.min(buttons.length - 1, to))].focus();
  });
  choose(0);
  const fact = (name, told) => (told ? h("div", {}, h("dt", {}, name), h("dd", {}, told)) : null);
  return [
    h("div", { class: "head" }, h("h1", { class: "mono" }, value(root, ".statement") ?? value(root, ".query.text") ?? root.name),
      root.status?.code === 2 ? h("span", { class: "bad" }, root.status.message) : null),
    h("dl", { class: "facts" },
      fact("Duration", duration(root.to - root.from)), fact("Began", clock(start)), fact("Trace", id), fact("Root span", root.spanId),
      fact("Parent", root.parentSpanId), fact("Client", value(root, ".connection.id")), fact("Exported", root.flags & 1 ? "chosen by the sampler" : "not sampled")),
    h("div", { class: "trace" }, h("div", {}, water, legend()), side),
  ];
}

/** Bars in thousandths of the trace; one that is shorter than a pixel still shows. */
function track(span, depth, end) {
  const at = (time) => `${((time / end) * 100).toFixed(3)}%`;
  const width = Math.max(0.4, ((span.to - span.from) / end) * 100);
  return h("svg", { class: "track", "aria-hidden": "true" },
    h("rect", { x: `${Math.min((span.from / end) * 100, 99.6).toFixed(3)}%`, y: 2, height: 9, width: `${width.toFixed(3)}%`, class: `fill-${colour(span, depth)}` }),
    span.events.map((event) => h("rect", { x: at(event.at), y: 0, width: 2, height: 13, class: "fill-bad" }, h("title", {}, event.name))));
}

const legend = () => h("p", { class: "keys legend" }, h("span", { class: "mutable" }, "mutable"), h("span", { class: "read_only" }, "read_only"),
  h("span", { class: "disk" }, "disk"), h("span", { class: "execute" }, "execution"), h("kbd", {}, "↑"), h("kbd", {}, "↓"), "choose a span");

function details(span) {
  const pairs = (entries) => h("dl", {}, entries.map(([key, told]) => h("div", {}, h("dt", {}, key), h("dd", {}, told))));
  const dropped = span.droppedAttributesCount ? [["dropped attributes", String(span.droppedAttributesCount)]] : [];
  return [
    h("h2", {}, span.name),
    pairs([["span id", span.spanId], ["starts after", duration(span.from)], ["takes", duration(span.to - span.from)],
      ...(span.status?.code === 2 ? [["status", `ERROR ${span.status.message}`]] : []), ...span.values, ...dropped,
      ...(span.links ?? []).map((link) => ["link", h("a", { href: `#/trace/${link.traceId}` }, `${link.traceId} ${link.spanId}`)])]),
    ...span.events.map((event) => h("section", {}, h("h3", {}, `${event.name} after ${duration(event.at - span.from)}`),
      pairs((event.attributes ?? []).map(({ key, value: told }) => [key, plain(told)])))),
  ];
}
