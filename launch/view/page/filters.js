// The filters above the list.

import { el, number } from "./dom.js";
import { FILTERS, change, state } from "./state.js";

const WAIT_MS = 75;
const FLAGS = [
  ["wrong", "wrong label", "A label is not the data set's answer"],
  ["abstained", "no label", "The vote abstained"],
  ["truncated", "truncated", "A completion ended at the token limit"],
  ["swapped", "swapped in flight", "Weights were swapped within a completion"],
];

export function filterPanel() {
  const search = el("input.search", { type: "search", placeholder: "Search completions, answers, wordings, ids", spellcheck: false,
    maxLength: 300, "aria-label": "search" });
  let timer = 0;
  const told = () => {
    clearTimeout(timer);
    change({ search: search.value }, { replace: true });
  };
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(told, WAIT_MS);
  });
  search.addEventListener("change", told);
  const regex = toggle("regex", ".*", "The search is a regular expression");
  const flags = FLAGS.map(([name, text, title]) => toggle(name, text, title));
  const differ = choice("differ", "votes", [["", "any votes"], ["sources", "policy \u2260 teacher"], ["views", "wordings differ"]]);
  const fate = choice("fate", "fate", [["", "any fate"], ["trained", "trained"], ["withheld", "withheld"], ["dropped", "dropped"],
    ["voted", "voted only"], ["waiting", "waiting"]]);
  const order = choice("order", "order", [["", "by update"], ["newest", "newest first"], ["reward", "lowest reward"],
    ["share", "closest vote"]]);
  const low = bound("reward_from", "reward from");
  const high = bound("reward_to", "to");
  const slider = updateSlider();
  const clear = el("button.quiet", { type: "button", onclick: () => change(Object.fromEntries(FILTERS.map((name) => [name, ""]))) },
    "clear filters");
  const node = el("form.filters", { onsubmit: (event) => event.preventDefault() },
    el("div.searchbar", null, search, regex.node), el("div.chips", null, flags.map((flag) => flag.node)),
    el("div.choices", null, differ.node, fate.node, order.node),
    el("div.reward", null, el("label", null, "reward ", low.node), el("label", null, "to ", high.node), clear), slider.node);
  const parts = [regex, ...flags, differ, fate, order, low, high];
  return {
    node,
    focus: () => search.select(),
    show(run) {
      if (document.activeElement !== search) search.value = state.search || "";
      for (const part of parts) part.show();
      flags[0].node.disabled = Boolean(run) && !run.has_answers;
      slider.show(run);
      clear.hidden = !FILTERS.some((name) => state[name]);
    },
  };
}

function toggle(name, text, title) {
  const node = el("button.chip", { type: "button", title, onclick: () => change({ [name]: state[name] ? "" : "1" }) }, text);
  return { node, show: () => node.setAttribute("aria-pressed", String(Boolean(state[name]))) };
}

function choice(name, label, options) {
  const node = el("select", { "aria-label": label, onchange: () => change({ [name]: node.value }) },
    options.map(([value, text]) => el("option", { value }, text)));
  return {
    node,
    show() {
      node.value = state[name] || "";
      node.classList.toggle("set", Boolean(state[name]));
    },
  };
}

function bound(name, label) {
  const node = el("input.bound", { type: "number", step: "any", "aria-label": label, onchange: () => change({ [name]: node.value }) });
  return { node, show: () => { node.value = state[name] || ""; } };
}

function updateSlider() {
  const from = el("input", { type: "range", "aria-label": "from update" });
  const to = el("input", { type: "range", "aria-label": "to update" });
  const words = el("output");
  let [first, last] = [1, 1];
  const values = () => [Math.min(+from.value, +to.value), Math.max(+from.value, +to.value)];
  const tell = (low, high) => {
    words.textContent = low === first && high === last ? `updates ${number(first)} to ${number(last)}`
      : low === high ? `update ${number(low)}` : `updates ${number(low)} to ${number(high)}`;
    node.style.setProperty("--low", String((low - first) / Math.max(1, last - first)));
    node.style.setProperty("--high", String((high - first) / Math.max(1, last - first)));
  };
  const set = (low, high) => change({ update_from: low <= first ? "" : low, update_to: high >= last ? "" : high }, { replace: true });
  for (const input of [from, to]) {
    input.addEventListener("input", () => tell(...values()));
    input.addEventListener("change", () => set(...values()));
  }
  const step = (by) => {
    let [low, high] = values();
    const width = low === first && high === last ? 0 : high - low;
    low = low === first && high === last ? (by > 0 ? first : last) : Math.min(last - width, Math.max(first, low + by * (width + 1)));
    change({ update_from: low, update_to: low + width }, { replace: true });
  };
  const node = el("div.updates", null,
    el("div.updates-head", null, words, el("span", null,
      el("button.quiet", { type: "button", title: "earlier updates", onclick: () => step(-1) }, "\u2039"),
      el("button.quiet", { type: "button", title: "later updates", onclick: () => step(1) }, "\u203a"))),
    el("div.track", null, from, to));
  return {
    node,
    show(run) {
      node.hidden = !run || run.updates[0] === null;
      if (node.hidden) return;
      [first, last] = run.updates;
      for (const input of [from, to]) [input.min, input.max] = [first, last];
      from.value = state.update_from || first;
      to.value = state.update_to || last;
      tell(...values());
    },
  };
}
