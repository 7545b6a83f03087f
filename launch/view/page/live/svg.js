// Drawing: elements of SVG, axes, and numbers that fit on them.

import { fixed, number } from "../dom.js";

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElementNS(SVG, tag);
  if (classes.length) node.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) node.append(child);
  return node;
}

export function words(text, x, y, anchor, more) {
  const node = svg("text" + (more || ""), { x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

// Where `value` lies between two pixels.
export const scale = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);

// Round numbers from low to high, about `count` of them.
export function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) || 0; at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}

// Round numbers from low to high with their texts, all with the same number of digits.
export function labelled(low, high, count) {
  const values = ticks(low, high, count);
  const step = values.length > 1 ? values[1] - values[0] : Math.abs(values[0]) || 1;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return values.map((value) => [value, digits > 4 ? brief(value) : Math.abs(value) >= 1000 ? number(value) : fixed(value, digits)]);
}

export function brief(value) {
  const size = Math.abs(value);
  if (size >= 10000 || (size >= 100 && Number.isInteger(value))) return number(Math.round(value));
  if (size >= 100) return fixed(value, 0);
  if (Number.isInteger(value)) return fixed(value, 0);
  if (size >= 10) return fixed(value, 1);
  if (size >= 0.1) return fixed(value, 2);
  if (size >= 0.001) return fixed(value, 4).replace(/0+$/, "");
  return value.toExponential(1).replace("-", "\u2212");
}

// Draws anew when the width changes, and when the returned function is called.
export function drawn(node, draw) {
  let width = 0;
  const again = () => {
    if (width > 0) node.replaceChildren(draw(width));
  };
  new ResizeObserver(() => {
    const now = Math.floor(node.clientWidth);
    if (now === width) return;
    width = now;
    again();
  }).observe(node);
  return again;
}
