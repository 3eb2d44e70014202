// Elements and numbers. Text only ever becomes a text node or an attribute: what clients send is never taken for markup.

const SVG = new Set(["svg", "rect", "line", "g", "title"]);

/** An element with attributes (`on…`: a listener, `null` and `false`: none) and children. */
export function h(name, attributes = {}, ...children) {
  const node = SVG.has(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Nanoseconds with three significant digits. */
export function duration(ns) {
  if (ns < 1e3) return `${Math.round(ns)} ns`;
  const [unit, name] = ns < 1e6 ? [1e3, "µs"] : ns < 1e9 ? [1e6, "ms"] : [1e9, "s"];
  const value = ns / unit;
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${name}`;
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (count >= 1024 && at < units.length - 1) [count, at] = [count / 1024, at + 1];
  return `${at && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
}

export const number = (count) => Math.round(count).toLocaleString("en-US").replaceAll(",", " ");
export const percent = (share) => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 2 : 1)} %`;

/** The local time of day, to the millisecond. */
export function clock(unixNs) {
  const date = new Date(unixNs / 1e6);
  const two = (part) => String(part).padStart(2, "0");
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

/** What the server answers; throws its words. `path`: relative, so that a proxy may put the page below a folder. */
export async function get(path, signal) {
  const response = await fetch(`api/${path}`, { signal, credentials: "same-origin" });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The server answers ${response.status}.`);
  return answer;
}

export const traceLink = (id, ...children) => h("a", { href: `#/trace/${id}` }, ...children);
export const tag = (text, kind = text) => h("span", { class: `tag ${kind}` }, text);

export function empty(first, second) {
  return h("div", { class: "sheet empty" }, h("p", {}, first), second ? h("p", {}, second) : null);
}
