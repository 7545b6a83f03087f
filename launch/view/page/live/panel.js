// A panel of the page "Run": a picture, its tags with their newest values, what they mean, and which knob to turn.

import { el, fill, visible } from "../dom.js";
import { change, state } from "../state.js";
import { source } from "../source.js";
import { curveChart } from "./chart.js";
import { linesOf } from "./curves.js";
import { laneChart } from "./lanes.js";
import { ageStrip } from "./strip.js";
import { brief, svg } from "./svg.js";
import { coded } from "./top.js";

export const WINDOW = "6";
const WINDOWS = ["3", WINDOW, "15", "40"];
const PICTURES = { ages: ageStrip, lanes: laneChart, curves: curveChart };

// view: { groups, found, run, until }, as page.js makes it.
export function panelOf(panel, onPick) {
  const picture = PICTURES[panel.kind](onPick);
  const tags = el("div.tags");
  const which = el("span.note");
  const node = el("article.panel." + panel.kind, null,
    el("h3", null, el("span", null, visible(panel.title)), which, panel.kind === "lanes" && !source.isFile ? windowPicker() : null),
    picture.node, tags, meaning(panel));
  const shows = {
    curves(view) {
      const lines = linesOf(panel, view.groups, view.found);
      node.hidden = !lines.length;
      picture.show({ lines, limits: limitsOf(panel, view), unit: panel.tags[0].unit, until: view.until });
      fill(tags, tagRows(lines, panel, view.groups.length > 1));
    },
    ages: ({ run }) => picture.show({ ages: run.ages, step: run.step, bound: run.bounds[panel.tags[0].name], until: run.planned }),
    lanes: ({ run }) => picture.show(run.lanes),
  };
  return {
    node,
    show(view) {
      fill(which, panel.kind !== "curves" && Object.keys(view.found).length > 1 ? visible(view.run.name) : "");
      shows[panel.kind](view);
    },
  };
}

// The thresholds of alarms and the bounds of the configuration, each once; the limits of what is healthy where there is room.
function limitsOf(panel, { run }) {
  const found = new Map();
  for (const tag of panel.tags)
    for (const [name, value, soft] of [["alarm", run.thresholds[tag.name]], ["bound", run.bounds[tag.name]], ["healthy", tag.limit, true]])
      if (value !== undefined && value !== null && run.curves[tag.name]) found.set(`${name} ${brief(value)}`, { value, soft });
  return [...found].map(([name, limit]) => ({ name, ...limit }));
}

// A row for each tag: its newest value, of several groups in their colours.
function tagRows(lines, panel, several) {
  return panel.tags.map((tag) => [tag, lines.filter((line) => line.tag === tag.name)]).filter(([, own]) => own.length).map(([tag, own]) =>
    el("span.tag" + (several ? "" : "." + own[0].kind), { title: `${tag.text} Healthy: ${tag.healthy}.` },
      several ? svg("svg.dash." + own[0].kind.split(".")[1], { width: 18, height: 8 }, svg("path.line", { d: "M0 4H18" })) : el("i.swatch"),
      el("span.tag-name", null, visible(tag.name)), own.map((line) => el("b" + (several ? "." + line.kind : ""), null, brief(line.points.at(-1)[1])))));
}

function meaning(panel) {
  const [tag] = panel.tags;
  return el("div.meaning", null,
    el("p", null, visible(tag.text), tag.healthy ? [" ", el("i", null, "Healthy:"), " ", visible(tag.healthy), "."] : null),
    panel.turn.length ? el("ul", null, panel.turn.map(([see, means, turn]) => el("li", null, coded(see), el("span.arrow", null, " \u2192 "),
      coded(means), ". Turn: ", coded(turn), "."))) : null);
}

function windowPicker() {
  const own = state.lanes || WINDOW;
  const node = el("select", { "aria-label": "updates in the lanes", onchange: () => change({ lanes: node.value }, { replace: true }) },
    [...new Set([...WINDOWS, own])].map((one) => el("option", { value: one }, `the newest ${one} updates`)));
  node.value = own;
  return node;
}
