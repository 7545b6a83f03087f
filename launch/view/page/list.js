// The list of askings: only the rows in sight are in the page.

import { el, fill, fixed, number, short } from "./dom.js";
import { linkTo, state } from "./state.js";
import { source } from "./source.js";

const HEIGHT = 68;
const CHUNK = 100;

export function askingList(onSelect) {
  const spacer = el("div.spacer");
  const node = el("div.list", { tabIndex: 0, role: "listbox", "aria-label": "questions" }, spacer);
  const cache = new Map();
  const asked = new Map();
  let run = "";
  let numbers = [];
  let drawn = "";

  node.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  new ResizeObserver(() => draw()).observe(node);

  // Resolves when the rows are here, whoever asked for them first.
  async function fetchRows(wanted) {
    const [from, missing] = [run, wanted.filter((n) => !cache.has(n) && !asked.has(n))];
    if (missing.length) {
      const coming = arrive(from, missing).finally(() => missing.forEach((n) => asked.get(n) === coming && asked.delete(n)));
      missing.forEach((n) => asked.set(n, coming));
    }
    await Promise.all(new Set(wanted.map((n) => asked.get(n))));
  }

  async function arrive(from, missing) {
    const rows = await source.rows(from, missing);
    if (from !== run) return;
    for (const row of rows) cache.set(row.n, row);
    drawn = "";
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(node.scrollTop / HEIGHT) - 5);
    const last = Math.min(numbers.length, Math.ceil((node.scrollTop + node.clientHeight) / HEIGHT) + 5);
    const key = [first, last, state.n, state.id, numbers.length].join();
    if (key === drawn) return;
    drawn = key;
    spacer.style.setProperty("height", numbers.length * HEIGHT + "px");
    const rows = [];
    for (let at = first; at < last; at += 1) {
      const row = cache.get(numbers[at]);
      const item = row ? rowOf(row) : el("a.row.empty", null, "\u2026");
      item.style.setProperty("top", at * HEIGHT + "px");
      rows.push(item);
    }
    fill(spacer, rows);
    const begin = Math.floor(first / CHUNK) * CHUNK;
    const end = Math.min(numbers.length, Math.ceil(last / CHUNK) * CHUNK);
    fetchRows(numbers.slice(begin, end)).catch(() => {});
  }

  function rowOf(row) {
    const labels = [...new Set(row.labels.filter((label) => label !== null))];
    return el("a.row" + (isSelected(row) ? ".selected" : ""), { href: linkTo({ id: row.id, n: row.again ? row.n : "" }),
      role: "option", "aria-selected": String(isSelected(row)),
      onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        onSelect(row);
      } },
    el("span.row-head", null, el("span.update", null, row.made === null ? row.fate : "update " + number(row.made)),
      el("span.name", null, short(row.id, 60)), badges(row)),
    el("span.row-text", null, short(row.wording || row.id, 160)),
    el("span.row-foot", null, marks(row.marks || ""), el("span.label", null, labels.length ? "label " + short(labels.join(", "), 30) : ""),
      row.mean === null ? null : el("span.mean", null, "reward " + fixed(row.mean, 2))));
  }

  const isSelected = (row) => (state.n ? String(row.n) === state.n : row.id === state.id && !row.again);

  return {
    node,
    draw: () => { drawn = ""; draw(); },
    show(name, found, { keep = false } = {}) {
      if (name !== run || !keep) cache.clear();
      if (name !== run) asked.clear();
      [run, numbers, drawn] = [name, found, ""];
      if (!keep) node.scrollTop = 0;
      draw();
    },
    forget() { cache.clear(); },
    // The row that is `by` rows away from the one shown; loads it if needed.
    async neighbour(by) {
      let at = numbers.findIndex((n) => cache.has(n) && isSelected(cache.get(n)));
      if (at < 0 && state.id) {
        const shown = await source.asking(run, state.n ? { n: state.n } : { id: state.id });
        at = numbers.indexOf(shown.n);
      }
      const next = at < 0 ? 0 : at + by;
      if (next < 0 || next >= numbers.length) return null;
      if (!cache.has(numbers[next])) await fetchRows([numbers[next]]);
      const top = next * HEIGHT;
      if (top < node.scrollTop || top + HEIGHT > node.scrollTop + node.clientHeight) node.scrollTop = top - node.clientHeight / 2;
      return cache.get(numbers[next]) || null;
    },
  };
}

export function badges(row) {
  const found = [];
  if (row.wrong) found.push(el("span.badge.bad", { title: "A label is not the data set's answer" }, "wrong"));
  if (row.abstained) found.push(el("span.badge.warn", { title: "The vote abstained" }, "no label"));
  if (row.fate === "dropped" || row.fate === "withheld")
    found.push(el("span.badge.dim", { title: row.reason || "" }, row.fate + (row.reason ? ": " + row.reason.replaceAll("_", " ") : "")));
  if (row.sources_differ) found.push(el("span.badge.info", { title: "Policy and teacher vote for other answers" }, "p\u2260t"));
  if (row.views_differ) found.push(el("span.badge.info", { title: "The two wordings vote for other answers" }, "o\u2260r"));
  if (row.swapped) found.push(el("span.badge.dim", { title: "Weights were swapped within a completion" }, "swap"));
  if (row.again) found.push(el("span.badge.dim", { title: "A later start of the run made this update again" }, "made again"));
  return el("span.badges", null, found);
}

const MARKS = { 1: ["yes", "the label's answer"], 0: ["no", "another answer"], "-": ["none", "no answer"] };

function marks(letters) {
  return el("span.marks", null, [...letters].map((letter) => (letter === " " ? el("i.gap")
    : el("i." + MARKS[letter][0], { title: MARKS[letter][1] }))));
}
