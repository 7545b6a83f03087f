// Who does what, and when: a lane for each process, bars coloured by the version of the weights.

import { colour, el, fill, fixed, number, short } from "../dom.js";
import { brief, drawn, scale, svg, ticks, words } from "./svg.js";

const LANE = 26;
const THICK = 17;
const FRAME = { right: 10, top: 4, bottom: 22 };
const KINDS = { wait: "waits for a batch", update: "makes update", publish: "publishes version", sample: "samples with version" };

// Shows what launch/view/live/lanes.py makes.
export function laneChart() {
  const node = el("div.chart");
  const tip = el("div.told", { hidden: true });
  let content = { lanes: [] };
  const draw = drawn(node, (width) => lanes(content, width, tip));
  return {
    node: el("div.chart-frame", null, node, tip),
    show(given) {
      content = given;
      draw();
    },
  };
}

function lanes({ lanes: rows, length_ms: length }, width, tip) {
  const left = Math.min(150, width * 0.3);
  const height = FRAME.top + FRAME.bottom + Math.max(1, rows.length) * LANE;
  const root = svg("svg", { width, height, role: "img" });
  if (!rows.length) {
    root.append(words("no update yet", width / 2, height / 2, "middle"));
    return root;
  }
  const x = scale(0, length, left, width - FRAME.right);
  root.append(svg("g.axes", null, ticks(0, length / 1000, Math.max(2, Math.floor(width / 110))).map((second) => [
    svg("line.grid", { x1: x(second * 1000), x2: x(second * 1000), y1: FRAME.top, y2: height - FRAME.bottom }),
    words(brief(second) + " s", x(second * 1000), height - 6, "middle")])));
  rows.forEach((row, at) => {
    const top = FRAME.top + at * LANE + (LANE - THICK) / 2;
    root.append(words(short(row.lane, Math.floor(left / 7.5)), left - 8, top + THICK - 4, "end", ".lane-name"),
      svg("line.grid", { x1: left, x2: width - FRAME.right, y1: top + THICK + 3, y2: top + THICK + 3 }));
    for (const [kind, begin, end, version] of row.bars) {
      const bar = svg("rect.bar." + (KINDS[kind] ? kind : "other"), { x: x(begin).toFixed(1), y: top, width: Math.max(1, x(end) - x(begin)).toFixed(1), height: THICK, rx: 2 });
      if (version !== null) colour(bar, version);
      bar.told = [row.lane, KINDS[kind] || kind, version, begin, end];
      root.append(bar);
      if (version !== null && x(end) - x(begin) > 26 && kind !== "publish") root.append(words(number(version), (x(begin) + x(end)) / 2, top + THICK - 5, "middle", ".bar-name"));
    }
  });
  root.addEventListener("pointermove", (event) => {
    const told = event.target.told;
    tip.hidden = !told;
    if (!told) return;
    const [lane, kind, version, begin, end] = told;
    fill(tip, el("b", null, short(lane, 40)), `${kind}${version === null ? "" : " " + number(version)}, ${fixed((end - begin) / 1000, 2)} s`);
    const at = event.clientX - root.getBoundingClientRect().left;
    tip.style.setProperty("left", at > width / 2 ? "auto" : at + 12 + "px");
    tip.style.setProperty("right", at > width / 2 ? width - at + 12 + "px" : "auto");
  });
  root.addEventListener("pointerleave", () => { tip.hidden = true; });
  return root;
}
