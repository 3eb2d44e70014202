// The frame: which view the address asks for, the keys, the line at the top.

import { bytes, get, h, number, percent } from "./dom.js";
import { latency, state } from "./figures.js";
import { list } from "./list.js";
import { trace } from "./trace.js";

const main = document.getElementById("main");
const notice = document.getElementById("notice");
const summary = document.getElementById("summary");
const VIEWS = ["recent", "slow", "failed", "latency", "state"];
let leaving = new AbortController();

async function open() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, id] = path.split("/");
  const wanted = view === "trace" && id ? view : VIEWS.includes(view) ? view : "recent";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === wanted) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${wanted === "trace" ? `Trace ${id.slice(0, 8)}` : wanted[0].toUpperCase() + wanted.slice(1)} – Ferrite`;
  try {
    if (wanted === "trace") await trace(main, id, signal);
    else if (wanted === "latency") await latency(main, signal);
    else if (wanted === "state") await state(main, signal);
    else await list(main, wanted, new URLSearchParams(query), signal);
    tell("");
  } catch (error) {
    if (signal.aborted) return;
    main.replaceChildren(h("div", { class: "sheet empty" }, h("p", { class: "bad" }, error.message)));
  }
  main.dataset.ready = wanted;
}

function tell(text) {
  notice.hidden = text === "";
  notice.textContent = text;
}

let before = null;
async function summarise() {
  if (document.hidden) return;
  try {
    const told = await get("state");
    const now = performance.now();
    const rate = before ? ((told.server.commands - before.commands) / (now - before.at)) * 1000 : null;
    before = { commands: told.server.commands, at: now };
    const part = (name, value) => h("span", {}, `${name} `, h("b", {}, value));
    summary.replaceChildren(...(rate === null ? [] : [part("commands/s", number(Math.max(0, rate)))]), part("keys", number(told.server.keys)),
      part("memory", bytes(told.server.memory)), part("read from memory", percent(told.tiers.mutable.hit_rate + told.tiers.read_only.hit_rate)));
    if (!notice.hidden) tell("");
  } catch {
    tell("The server does not answer; still trying.");
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const rows = [...document.querySelectorAll("tbody tr.open a")];
  const at = rows.indexOf(document.activeElement);
  if (event.key === "j" || event.key === "k") (rows[event.key === "j" ? at + 1 : Math.max(0, at - 1)] ?? rows.at(-1))?.focus();
  else if (event.key === "/") { event.preventDefault(); document.querySelector("form.filter input")?.focus(); }
  else if (event.key === "l") document.querySelector("button.live")?.click();
  else if (event.key === "Escape" && location.hash.startsWith("#/trace/")) history.back();
  else if (/^[1-5]$/.test(event.key)) location.hash = `#/${VIEWS[event.key - 1]}`;
});

addEventListener("hashchange", open);
open();
summarise();
setInterval(summarise, 2000);
