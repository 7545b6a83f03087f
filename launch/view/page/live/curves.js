// The lines of a chart: of one run a line for each tag, of several a line for each group of runs and tag. Runs that differ only in
// their seed are one line, their median, in a band from the lowest to the highest.

import { visible } from "../dom.js";

const COLOURS = 8;
const DASHES = 4;

// groups: [{ name, runs }]; found: run name to its content.
export function linesOf(panel, groups, found) {
  const tags = panel.tags.map((tag) => tag.name).filter((tag) => groups.some((group) => group.runs.some((run) => found[run]?.curves[tag])));
  const alone = groups.length === 1;
  return groups.flatMap((group, at) => tags.flatMap((tag, number) => {
    const curves = group.runs.map((run) => found[run]?.curves[tag]).filter(Boolean);
    if (!curves.length) return [];
    const kind = `c${(alone ? number : at) % COLOURS}.d${(alone ? 0 : number) % DASHES}`;
    const name = alone ? visible(tag) : `${visible(group.name)}: ${visible(tag)}`;
    return [{ tag, group, name, kind, ...joined(curves) }];
  }));
}

function joined(curves) {
  if (curves.length === 1) return { points: curves[0] };
  const values = new Map();
  for (const [update, value] of curves.flat()) values.set(update, [...(values.get(update) || []), value]);
  const rows = [...values].sort(([a], [b]) => a - b).map(([update, some]) => [update, some.sort((a, b) => a - b)]);
  return {
    points: rows.map(([update, some]) => [update, median(some)]),
    low: rows.map(([update, some]) => [update, some[0]]),
    high: rows.map(([update, some]) => [update, some.at(-1)]),
  };
}

function median(sorted) {
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
