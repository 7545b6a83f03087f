// Curves over updates: lines, bands, thresholds, and what the pointer is over.

import { el, fill, number } from "../dom.js";
import { brief, drawn, labelled, scale, svg, ticks, words } from "./svg.js";

const CHART_HEIGHT = 178;
const EDGE = { left: 46, right: 10, top: 8, bottom: 22 };
const DOTS = 30;

// Shows { lines, limits, unit, until }. lines: [{ name, kind, points, low, high }], points [update, value]; limits: [{ name, value }];
// a soft one is drawn only where there is room. until: the last update of the axis.
export function curveChart(onPick) {
  const node = el("div.chart");
  const tip = el("div.told", { hidden: true });
  let content = { lines: [], limits: [] };
  const draw = drawn(node, (width) => {
    tip.hidden = true;
    return drawing(content, width, tip, onPick);
  });
  return {
    node: el("div.chart-frame", null, node, tip),
    show(given) {
      content = given;
      draw();
    },
  };
}

function span(values, unit) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low >= 0 && low < 0.5 * high) low = 0;
  if (unit === "share" && high > 0.6 && high <= 1 && low < 0.5) high = 1;
  if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
  const room = (high - low) * 0.06;
  return [low === 0 ? 0 : low - room, unit === "share" && high === 1 ? 1 : high + room];
}

function drawing({ lines, limits, unit, until }, width, tip, onPick) {
  const all = lines.flatMap((line) => [...line.points, ...(line.low || []), ...(line.high || [])]);
  const root = svg("svg", { width, height: CHART_HEIGHT, role: "img" });
  if (!all.length) {
    root.append(words("nothing yet", width / 2, CHART_HEIGHT / 2, "middle"));
    return root;
  }
  const updates = [...new Set(all.map(([update]) => update))].sort((a, b) => a - b);
  const [low, high] = span([...all.map(([, value]) => value), ...limits.filter((limit) => !limit.soft).map((limit) => limit.value)], unit);
  const first = 0;
  const x = scale(first, Math.max(until || 0, updates.at(-1), first + 1), EDGE.left, width - EDGE.right);
  const y = scale(low, high, CHART_HEIGHT - EDGE.bottom, EDGE.top);
  root.append(axes(x, y, [low, high], [first, Math.max(until || 0, updates.at(-1), first + 1)], width));
  for (const limit of limits.filter(({ value }) => value >= low && value <= high)) root.append(svg("g" + (limit.soft ? ".soft" : ""), null,
    svg("line.limit", { x1: EDGE.left, x2: width - EDGE.right, y1: y(limit.value), y2: y(limit.value) }),
    words(limit.name, width - EDGE.right, y(limit.value) - 3, "end", ".limit-name")));
  for (const line of lines) root.append(curve(line, x, y));
  const over = svg("line.over", { y1: EDGE.top, y2: CHART_HEIGHT - EDGE.bottom, visibility: "hidden" });
  root.append(over);
  pointed(root, { updates, x, over, tip, lines, onPick, width });
  return root;
}

function axes(x, y, [low, high], [first, last], width) {
  const rows = labelled(low, high, 4).map(([value, text]) => [
    svg("line.grid", { x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }),
    words(text, EDGE.left - 6, y(value) + 4, "end")]);
  const columns = ticks(first, last, Math.max(2, Math.floor(width / 60))).filter(Number.isInteger)
    .map((update) => words(number(update), x(update), CHART_HEIGHT - 6, "middle"));
  return svg("g.axes", null, rows, columns);
}

function curve(line, x, y) {
  const path = (points) => points.map(([update, value], at) => `${at ? "L" : "M"}${x(update).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const parts = [];
  if (line.low) parts.push(svg("path.band", { d: path(line.high) + path([...line.low].reverse()).replace("M", "L") + "Z" }));
  parts.push(svg("path.line", { d: path(line.points) }));
  if (line.points.length <= DOTS) parts.push(line.points.map(([update, value]) => svg("circle", { cx: x(update), cy: y(value), r: 2 })));
  return svg("g.curve." + line.kind, null, parts);
}

function pointed(root, { updates, x, over, tip, lines, onPick, width }) {
  const nearest = (event) => {
    const at = event.clientX - root.getBoundingClientRect().left;
    return updates.reduce((best, one) => (Math.abs(x(one) - at) < Math.abs(x(best) - at) ? one : best));
  };
  root.addEventListener("pointermove", (event) => {
    const update = nearest(event);
    over.setAttribute("visibility", "visible");
    over.setAttribute("x1", x(update));
    over.setAttribute("x2", x(update));
    const told = lines.map((line) => [line, line.points.find(([one]) => one === update)]).filter(([, point]) => point);
    fill(tip, el("b", null, "update " + number(update)), told.map(([line, [, value]]) => el("span." + line.kind, null,
      el("i.swatch"), brief(value), " ", line.name)));
    tip.hidden = false;
    const left = x(update) > width / 2;
    tip.style.setProperty("left", left ? "auto" : x(update) + 10 + "px");
    tip.style.setProperty("right", left ? width - x(update) + 10 + "px" : "auto");
  });
  root.addEventListener("pointerleave", () => {
    over.setAttribute("visibility", "hidden");
    tip.hidden = true;
  });
  root.addEventListener("click", (event) => onPick(nearest(event)));
}
