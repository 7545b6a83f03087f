// What the page shows, in the hash of its address: a link shows the same again.

export const FILTERS = ["search", "regex", "fate", "wrong", "abstained", "differ", "truncated", "swapped",
  "update_from", "update_to", "reward_from", "reward_to", "again", "order", "question"];

export const state = read();
const listeners = [];

function read() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

export function filterOf(given) {
  return Object.fromEntries(FILTERS.filter((name) => given[name]).map((name) => [name, given[name]]));
}

export function linkTo(changes) {
  const kept = Object.entries({ ...state, ...changes }).filter(([, value]) => value);
  return "#" + new URLSearchParams(kept).toString();
}

export function change(changes, { replace = false } = {}) {
  const link = linkTo(changes);
  if (link === (location.hash || "#")) return;
  history[replace ? "replaceState" : "pushState"](null, "", link);
  moved();
}

export function onChange(listener) {
  listeners.push(listener);
}

function moved() {
  const before = { ...state };
  for (const name of Object.keys(state)) delete state[name];
  Object.assign(state, read());
  for (const listener of listeners) listener(before);
}

addEventListener("popstate", moved);
addEventListener("hashchange", () => {
  if (linkTo({}) !== location.hash || listeners.length) moved();
});
