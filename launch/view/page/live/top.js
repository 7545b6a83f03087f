// The top of the page "Run": the state of each run, and its alarms.

import { el, number, plural, visible } from "../dom.js";
import { linkTo } from "../state.js";

const STATUS = {
  running: ["info", "running"],
  ended: ["good", "finished"],
  failed: ["bad", "failed"],
  interrupted: ["warn", "interrupted"],
};
const LEVELS = ["bad", "warn", "past"];

export function stateOf(run, groups) {
  const [kind, word] = STATUS[run.status];
  const group = groups.findIndex((one) => one.runs.includes(run.name));
  const made = run.planned ? `update ${number(run.update)} of ${number(run.planned)}` : plural(run.update, "update");
  const newest = run.status === "running" && run.written_s !== null ? `newest numbers ${ago(run.read_s - run.written_s)}` : "";
  return el("div.state", null, groups.length > 1 ? el("i.swatch.c" + (group % 8)) : null, el("b", null, visible(run.name)),
    el("span.badge." + kind, null, word),
    el("span.note", null, [visible(run.rule), run.seed === null ? "" : `seed ${run.seed}`, made, newest,
      run.step > 1 ? `each point is the mean of ${run.step} updates` : ""].filter(Boolean).join(", ")));
}

function ago(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

export function alarmsOf(runs) {
  const all = runs.flatMap((run) => run.alarms.map((alarm) => ({ ...alarm, run })))
    .sort((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level));
  if (!all.length) return el("p.calm", null, "No alarm.");
  return all.map((alarm) => el("div.alarm." + alarm.level, { role: "alert" },
    el("b", null, (runs.length > 1 ? visible(alarm.run.name) + ": " : "") + visible(alarm.title)),
    el("span.alarm-text", null, coded(alarm.text)), alarm.update === null ? null : before(alarm)));
}

function before(alarm) {
  const update = String(Math.max(1, alarm.update - 1));
  return el("a.link", { href: linkTo({ page: "", run: alarm.run.name, id: "", n: "", update_from: update, update_to: update }) },
    `samples of update ${number(+update)}`);
}

// What stands between backticks as code.
export function coded(text) {
  return text.split("`").map((part, at) => (at % 2 ? el("code", null, visible(part)) : visible(part)));
}
