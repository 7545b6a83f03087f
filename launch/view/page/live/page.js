// The page "Run": alarms first, then the panels of all boards.

import { el, fill, visible } from "../dom.js";
import { change, state } from "../state.js";
import { source } from "../source.js";
import { WINDOW, panelOf } from "./panel.js";
import { alarmsOf, stateOf } from "./top.js";

export function runPage() {
  const states = el("div.states");
  const alarms = el("section.alarms", { "aria-label": "alarms" });
  const legend = el("div.groups-legend");
  const body = el("div.pages");
  const node = el("div.live", null, states, alarms, legend, body);
  const found = {};
  let board = null;
  let panels = [];
  let shown = "";

  const names = () => board.groups.flatMap((group) => group.runs);
  const chosen = () => found[state.run] || found[names()[0]];

  // A click on an update shows its samples.
  function pick(update) {
    const run = chosen();
    change({ page: "", run: run.name, id: "", n: "", update_from: String(Math.max(1, update - run.step + 1)), update_to: String(update) });
  }

  async function load() {
    board = board || await source.board();
    await Promise.all(names().map(async (name) => {
      const got = await source.live(name, { updates: state.lanes || WINDOW, known: found[name]?.stamp || "" });
      if (got.curves) found[name] = got;
    }));
    const now = names().map((name) => found[name].stamp).join() + chosen().name;
    if (now !== shown) show();
    shown = now;
  }

  function show() {
    const runs = names().map((name) => found[name]);
    if (!panels.length) panels = sections(board, runs, body, pick);
    fill(states, runs.map((run) => stateOf(run, board.groups)));
    fill(alarms, alarmsOf(runs));
    fill(legend, board.groups.length < 2 ? null : board.groups.map((group, at) =>
      el("span.group-of.c" + (at % 8), null, el("i.swatch"), visible(group.name))));
    const until = Math.max(...runs.map((run) => run.planned || run.update));
    for (const panel of panels) panel.show({ groups: board.groups, found, run: chosen(), until });
    node.dataset.shown = "yes";
  }

  return { node, load, isGoingOn: () => names().some((name) => found[name].follows && found[name].status === "running") };
}

// A metric of a plug-in has a panel of its own on the page of labels.
function sections(board, runs, body, pick) {
  const others = [...new Set(runs.flatMap((run) => run.others))].map((name) => ({ page: "labels", title: name, kind: "curves", turn: [],
    tags: [{ name, unit: "", text: "A metric of a plug-in.", healthy: "" }] }));
  const panels = [...board.panels, ...others];
  const made = [];
  fill(body, [...new Set(panels.map((panel) => panel.page))].map((page, at) => el("section.page", null, el("h2", null, `${at + 1}. ${page}`),
    el("div.panels", null, panels.filter((panel) => panel.page === page).map((panel) => {
      made.push(panelOf(panel, pick));
      return made.at(-1).node;
    })))));
  return made;
}
