// The lists: recent, slow, failed traces, with a filter that the address holds and a live tail.

import { clock, duration, empty, get, h, tag, traceLink } from "./dom.js";

const TITLES = { recent: "Recent traces", slow: "Slow traces", failed: "Failed traces" };
const FIELDS = [
  ["cmd", "Command", "GET"],
  ["key", "Key (user:* too)", "user:1"],
  ["tenant", "Tenant", "acme"],
  ["client", "Client id", "7"],
  ["min", "At least, ms", "0.5"],
];
const TAIL_MS = 1000;

export async function list(main, view, query, signal) {
  const seen = new Set();
  const body = h("tbody");
  const remark = h("p", { class: "soft" });
  const sheet = h("div", {});
  const live = h("button", { type: "button", class: "live", "aria-pressed": String(query.get("live") === "1") }, "Live");
  live.addEventListener("click", () => go(view, { ...Object.fromEntries(query), live: live.ariaPressed === "true" ? "" : "1" }));
  main.replaceChildren(
    h("div", { class: "head" }, h("h1", {}, TITLES[view]), remark),
    filter(view, query, live),
    sheet,
    h("p", { class: "keys" }, keys("j", "k"), " move", keys("Enter"), " open", keys("/"), " filter", keys("l"), " live", keys("1"), "to", keys("5"), " views"),
  );

  const load = async () => {
    const wanted = new URLSearchParams(query);
    wanted.delete("live");
    wanted.set("view", view);
    const { traces, remark: said } = await get(`traces?${wanted}`, signal);
    remark.textContent = said ?? "";
    const first = seen.size === 0;
    // A connection may last for hours.
    const longest = Math.max(10_000, ...traces.filter((trace) => trace.is_command).map((trace) => trace.duration_ns));
    const rows = traces.map((trace) => row(trace, longest, !first && !seen.has(trace.root_id)));
    traces.forEach((trace) => seen.add(trace.root_id));
    const focused = document.activeElement?.closest?.("tr")?.dataset.root;
    body.replaceChildren(...rows);
    if (focused) body.querySelector(`tr[data-root="${focused}"] a`)?.focus();
    if (!traces.length) sheet.replaceChildren(none(view, query));
    else if (!body.isConnected) sheet.replaceChildren(h("div", { class: "sheet" }, h("table", {}, head(), body)));
  };
  await load();
  if (query.get("live") === "1") return every(TAIL_MS, load, signal);
}

/** Calls until the view is left; a server that is away for a moment does not end it. */
export function every(ms, task, signal) {
  const timer = setInterval(() => {
    if (!document.hidden) task().catch(() => {});
  }, ms);
  signal.addEventListener("abort", () => clearInterval(timer));
}

const keys = (...names) => names.map((name) => h("kbd", {}, name));

function none(view, query) {
  if ([...query.keys()].some((key) => key !== "live")) return empty("No trace matches.", "The recorder holds the last moments of every worker; older traces are gone.");
  return {
    recent: empty("Nothing was recorded yet.", "Send a command, or check that telemetry.traces_enabled is true."),
    slow: empty("No slow command.", "Slow is what SLOWLOG takes: slowlog-log-slower-than."),
    failed: empty("No failed command.", "Every error reply would be here, exported or not."),
  }[view];
}

function go(view, values) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== ""));
  location.hash = `#/${view}${query.size ? `?${query}` : ""}`;
}

function filter(view, query, live) {
  const tier = h("select", { name: "tier" }, ...[["", "any"], ["mutable", "mutable"], ["read_only", "read_only"], ["disk", "disk"]]
    .map(([value, text]) => h("option", { value, selected: query.get("tier") === value }, text)));
  const form = h("form", { class: "filter", role: "search", "aria-label": "Filter" },
    FIELDS.map(([name, text, hint]) => h("label", { class: "field" }, text,
      h("input", { name, value: query.get(name) ?? "", placeholder: hint, autocomplete: "off", spellcheck: "false", class: name === "min" || name === "client" ? "short" : null }))),
    h("label", { class: "field" }, "Tier", tier),
    h("button", { class: "main" }, "Filter"),
    [...query.keys()].some((key) => key !== "live") ? h("button", { type: "button", onclick: () => go(view, { live: query.get("live") ?? "" }) }, "Clear") : null,
    live);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go(view, { ...Object.fromEntries(new FormData(form)), live: query.get("live") ?? "" });
  });
  return form;
}

const head = () => h("thead", {}, h("tr", {},
  ["Time", "Statement", "Tier"].map((text) => h("th", { scope: "col" }, text)),
  h("th", { scope: "col", class: "n" }, "Duration"), h("th", { scope: "col" }, h("span", { class: "faint" }, "log scale")),
  h("th", { scope: "col", class: "n" }, "Spans"), h("th", { scope: "col", class: "n" }, "Client"), h("th", { scope: "col" }, "Trace")));

function row(trace, longest, isNew) {
  // From a microsecond on, by the logarithm: a disk read and a hit in memory fit into one column.
  const share = Math.min(88, Math.max(2, (Math.log(trace.duration_ns / 1000) / Math.log(longest / 1000)) * 88));
  const kind = trace.error ? "bad" : trace.tiers.at(-1) ?? "plain";
  const open = () => { location.hash = `#/trace/${trace.trace_id}`; };
  return h("tr", { class: isNew ? "open new" : "open", "data-root": trace.root_id, onclick: (event) => { if (!event.target.closest("a")) open(); } },
    h("td", { class: "mono soft" }, clock(trace.start_unix_ns)),
    h("td", { class: "statement", title: trace.statement }, traceLink(trace.trace_id, trace.statement), trace.error ? h("span", { class: "err" }, trace.error) : null),
    h("td", {}, trace.tiers.map((tier) => tag(tier))),
    h("td", { class: "n" }, duration(trace.duration_ns)),
    h("td", {}, h("span", { class: "bar", "aria-hidden": "true" }, h("svg", { width: 88, height: 6 }, h("rect", { width: share, height: 6, rx: 2, class: `fill-${kind}` })))),
    h("td", { class: "n" }, trace.spans),
    h("td", { class: "n" }, trace.connection || "–"),
    h("td", { class: "mono faint" }, trace.trace_id.slice(0, 8), " ", trace.sampled ? tag("sampled", "") : null));
}
