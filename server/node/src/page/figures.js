// Latency by command and by tier, with exemplars that open their trace; and the state of tiers, sampling and export.

import { bytes, duration, empty, get, h, number, percent } from "./dom.js";
import { every } from "./list.js";

export async function latency(main, signal) {
  const sheets = h("div", {});
  main.replaceChildren(h("div", { class: "head" }, h("h1", {}, "Latency"),
    h("p", { class: "soft" }, "Execution and waits for the disk, without queueing in a pipeline."),
    h("p", { class: "legend" }, h("span", { class: "exemplar" }, "bucket with an exemplar: opens its trace"))), sheets);
  const load = async () => {
    const { bounds_ns, commands, tiers, tiers_of } = await get("latency", signal);
    if (document.activeElement?.closest?.(".histo")) return;
    sheets.replaceChildren(
      commands.length ? sheet("Command", commands, bounds_ns, "Since the start") : empty("No command was called yet."),
      h("div", { class: "head" }),
      tiers.some((tier) => tier.calls) ? sheet("Tier", tiers, bounds_ns, `Of the last ${number(tiers_of)} commands in the recorder`) : "");
  };
  await load();
  every(3000, load, signal);
}

function sheet(what, series, bounds, scope) {
  // One scale for all rows: the buckets that any of them uses.
  const used = bounds.map((_, at) => series.some((one) => one.buckets[at])).concat(series.some((one) => one.buckets[bounds.length]));
  const [first, last] = [used.indexOf(true), used.lastIndexOf(true)];
  return h("div", { class: "sheet" }, h("table", { class: "figures" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, what), ["Calls", "Mean", "p50", "p99", "p99.9"].map((text) => h("th", { scope: "col", class: "n" }, text)),
      h("th", { scope: "col" }, `${scope} · ${label(bounds, first)} to ${label(bounds, last)}`))),
    h("tbody", {}, series.map((one) => h("tr", {}, h("td", { class: "mono" }, one.name), h("td", { class: "n" }, number(one.calls)),
      [one.calls ? one.sum_ns / one.calls : 0, ...[0.5, 0.99, 0.999].map((share) => quantile(one, bounds, share))]
        .map((ns) => h("td", { class: "n" }, one.calls ? duration(ns) : "–")),
      h("td", { class: "wide" }, histogram(one, bounds, first, last)))))));
}

const label = (bounds, at) => (at >= bounds.length ? `over ${duration(bounds.at(-1))}` : `≤ ${duration(bounds[at])}`);

/** Within its bucket by straight line, as Prometheus does. */
function quantile({ buckets, calls }, bounds, share) {
  let seen = 0;
  for (let at = 0; at < bounds.length; at += 1) {
    if (seen + buckets[at] >= calls * share && buckets[at]) {
      const from = at ? bounds[at - 1] : 0;
      return from + (bounds[at] - from) * ((calls * share - seen) / buckets[at]);
    }
    seen += buckets[at];
  }
  return bounds.at(-1);
}

function histogram(one, bounds, first, last) {
  const most = Math.max(...one.buckets);
  const width = 100 / (last - first + 1);
  const bars = [];
  for (let at = first; at <= last; at += 1) {
    const count = one.buckets[at];
    // By the square root, so that the few slow ones show beside the many fast ones.
    const height = count ? Math.max(2, Math.sqrt(count / most) * 32) : 0;
    const exemplar = one.exemplars.find(({ bucket }) => bucket === at);
    const place = { x: `${((at - first) * width + 0.3).toFixed(2)}%`, width: `${(width - 0.6).toFixed(2)}%`, y: 33 - height, height, rx: 1 };
    const title = h("title", {}, `${label(bounds, at)}: ${number(count)}${exemplar ? `, one took ${duration(exemplar.value_ns)}` : ""}`);
    const bar = h("rect", { ...place, class: exemplar ? "fill-root" : "fill-plain" }, title);
    bars.push(exemplar ? link(exemplar, bar) : bar);
  }
  return h("svg", { class: "histo", role: "group", "aria-label": `Latency of ${one.name}` }, bars);
}

function link(exemplar, bar) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", "a");
  node.setAttribute("href", `#/trace/${exemplar.trace_id}`);
  node.setAttribute("aria-label", `A trace that took ${duration(exemplar.value_ns)}`);
  node.append(bar);
  return node;
}

const TIERS = ["mutable", "read_only", "disk"];

export async function state(main, signal) {
  const cards = h("div", { class: "cards" });
  main.replaceChildren(h("div", { class: "head" }, h("h1", {}, "State")), cards);
  const load = async () => {
    const told = await get("state", signal);
    const sizes = TIERS.map((tier) => told.tiers[tier].bytes);
    const hits = TIERS.map((tier) => told.tiers[tier].hits);
    cards.replaceChildren(
      card("Tiers", stack(sizes), TIERS.map((tier) => [tier, bytes(told.tiers[tier].bytes)])),
      card("Reads by the tier that had the key", stack(hits), [...TIERS.map((tier) => [tier, `${number(told.tiers[tier].hits)} · ${percent(told.tiers[tier].hit_rate)}`]), ["missing", number(told.misses)]]),
      card("Sampling", null, [["sampler", told.sampling.sampler], ["ratio now", told.sampling.ratio === null ? "–" : percent(told.sampling.ratio)], ["spans recorded", number(told.sampling.spans_recorded)], ...told.sampling.by_reason.filter(([, count]) => count).map(([reason, count]) => [`chosen by ${reason}`, number(count)])]),
      card("Export", null, [["traces", told.export.state], ["endpoint", told.export.endpoint ?? "–"], ["spans exported", number(told.export.exported)], ["waiting", number(told.export.waiting)], ...told.export.dropped.filter(([, count]) => count).map(([reason, count]) => [`dropped: ${reason}`, number(count)])]),
      card("Recorder", null, [["memory", bytes(told.recorder.bytes)], ["span detail", told.recorder.detail], ["keys", told.recorder.keys], ["kept for SLOWLOG and exemplars", bytes(told.recorder.kept_bytes)]]),
      card("Server", null, [["version", told.server.version], ["up for", duration(told.server.uptime_ns)], ["workers", number(told.server.workers)], ["disk", told.server.disk], ["clients", number(told.server.clients)], ["keys", number(told.server.keys)], ["memory used", bytes(told.server.memory)]]),
    );
  };
  await load();
  every(2000, load, signal);
}

const card = (title, picture, facts) => h("section", { class: "card" }, h("h2", {}, title), picture,
  h("dl", {}, facts.flatMap(([name, told]) => [h("dt", {}, name), h("dd", {}, told)])));

function stack(parts) {
  const sum = parts.reduce((one, other) => one + other, 0);
  let from = 0;
  return h("svg", { class: "stack", "aria-hidden": "true" }, h("rect", { width: "100%", height: 10, fill: "none" }), sum ? parts.map((part, at) => {
    const bar = h("rect", { x: `${((from / sum) * 100).toFixed(2)}%`, width: `${((part / sum) * 100).toFixed(2)}%`, height: 10, class: `fill-${TIERS[at]}` });
    from += part;
    return bar;
  }) : []);
}
