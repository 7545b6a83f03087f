// How old the questions of each update were: a column for each update, a cell for each age, darker for more questions.

import { el, fill, number, plural } from "../dom.js";
import { drawn, scale, svg, ticks, words } from "./svg.js";

const CELL = 20;
const AROUND = { left: 46, right: 10, top: 8, bottom: 22 };

// Shows { ages, step, bound, until }: ages [[update, [[age, questions], ...]], ...], bound the largest age allowed or null.
export function ageStrip(onPick) {
  const node = el("div.chart");
  const tip = el("div.told", { hidden: true });
  let content = { ages: [] };
  const draw = drawn(node, (width) => strip(content, width, tip, onPick));
  return {
    node: el("div.chart-frame", null, node, tip),
    show(given) {
      content = given;
      draw();
    },
  };
}

function strip({ ages, step, bound, until }, width, tip, onPick) {
  const oldest = Math.max(bound ?? 0, 1, ...ages.flatMap(([, cells]) => cells.map(([age]) => age)));
  const height = AROUND.top + AROUND.bottom + (oldest + 1) * CELL;
  const root = svg("svg", { width, height, role: "img" });
  if (!ages.length) {
    root.append(words("nothing trained yet", width / 2, height / 2, "middle"));
    return root;
  }
  const last = Math.max(until || 0, ages.at(-1)[0]);
  const x = scale(0, last, AROUND.left, width - AROUND.right);
  const y = (age) => AROUND.top + (oldest - age) * CELL;
  const cells = ages.flatMap(([update, row]) => {
    const most = row.reduce((sum, [, count]) => sum + count, 0);
    const begin = Math.max(0, update - step);
    return row.map(([age, count]) => {
      const cell = svg("rect.cell", { x: x(begin), y: y(age), width: Math.max(1, x(update) - x(begin) - (step === 1 && last < 150 ? 1 : 0)), height: CELL - 1,
        "fill-opacity": (0.12 + 0.88 * (count / most)).toFixed(2) });
      cell.told = [`update ${number(update)}, age ${age}: `, `${number(count)} of ${plural(most, "question")}`];
      cell.update = update;
      return cell;
    });
  });
  const labels = ticks(0, oldest, 6).filter(Number.isInteger).map((age) => words(String(age), AROUND.left - 6, y(age) + CELL / 2 + 4, "end"));
  const columns = ticks(1, last, Math.max(2, Math.floor(width / 60))).filter(Number.isInteger)
    .map((update) => words(number(update), x(update - 0.5), height - 6, "middle"));
  root.append(svg("g.axes", null, labels, columns), ...cells);
  if (bound !== null && bound !== undefined) root.append(
    svg("line.limit", { x1: AROUND.left, x2: width - AROUND.right, y1: y(bound) - 1, y2: y(bound) - 1 }));
  root.addEventListener("pointermove", (event) => {
    const cell = event.target.told ? event.target : null;
    tip.hidden = !cell;
    if (!cell) return;
    fill(tip, el("b", null, cell.told[0]), cell.told[1]);
    const at = event.clientX - root.getBoundingClientRect().left;
    tip.style.setProperty("left", at > width / 2 ? "auto" : at + 12 + "px");
    tip.style.setProperty("right", at > width / 2 ? width - at + 12 + "px" : "auto");
  });
  root.addEventListener("pointerleave", () => { tip.hidden = true; });
  root.addEventListener("click", (event) => { if (event.target.update) onPick(event.target.update); });
  return root;
}
