// Makes elements. Text from a run goes into text nodes only, with control and invisible characters written out.

export function el(name, properties, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag || "div");
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && key !== "list") node[key] = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  add(node, children);
  return node;
}

export function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

export function fill(node, ...children) {
  node.replaceChildren();
  return add(node, children);
}

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

export function visible(text) {
  return text.replace(HIDDEN, (letter) => {
    const code = letter.codePointAt(0);
    if (code < 32) return String.fromCodePoint(0x2400 + code);
    return code === 127 ? "\u2421" : "\u27e8" + code.toString(16).toUpperCase().padStart(4, "0") + "\u27e9";
  });
}

export function short(text, most) {
  const shown = visible(text).replace(/\s+/g, " ");
  return shown.length > most ? shown.slice(0, most) + "\u2026" : shown;
}

export const number = (value) => value.toLocaleString("en-US");
export const fixed = (value, digits) => value.toFixed(digits).replace("-", "\u2212");
export const signed = (value, digits) => (value > 0 ? "+" : "") + fixed(value, digits);
export const plural = (count, word) => number(count) + " " + word + (count === 1 ? "" : "s");

// Versions that follow each other are far apart; red and green are left out, because they mean wrong and right.
export function colour(node, version) {
  const part = (0.35 + version * 0.618034) % 1;
  node.style.setProperty("--hue", String(Math.round(part < 0.3 ? 55 + (part / 0.3) * 55 : 195 + ((part - 0.3) / 0.7) * 130)));
  return node;
}
