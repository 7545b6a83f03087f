// The tokens of a completion, coloured by the weights that wrote them or by their probability.

import { colour, el, fill, fixed, number, visible } from "./dom.js";

const FIRST = 3000;
const LETTERS = 20000;

export function plainText(text) {
  const node = el("div.text");
  const show = (most) => fill(node, visible(text.slice(0, most)), text.length > most
    ? el("button.more", { type: "button", onclick: () => show(text.length) }, `show all ${number(text.length)} letters`) : null);
  show(LETTERS);
  return node;
}

// made: the update that trained them, or null; the age of a token is the updates that its weights lacked.
export function tokenText(tokens, made) {
  const node = el("div.text.tokens");
  let shown = 0;
  const show = (most) => {
    node.querySelector(".more")?.remove();
    let at = tokens.versions.length - 1;
    while (at > 0 && tokens.versions[at][0] > shown) at -= 1;
    let span = null;
    for (; shown < Math.min(most, tokens.pieces.length); shown += 1) {
      while (at + 1 < tokens.versions.length && tokens.versions[at + 1][0] <= shown) {
        at += 1;
        span = null;
      }
      const [begin, version] = tokens.versions[at];
      if (!span) {
        span = colour(el("span.version" + (begin === shown && at > 0 ? ".swap" : "")), version);
        node.append(span);
      }
      span.append(token(tokens, shown, version, made));
    }
    if (shown < tokens.pieces.length)
      node.append(el("button.more", { type: "button", onclick: () => show(tokens.pieces.length) },
        `show the other ${number(tokens.pieces.length - shown)} tokens`));
  };
  show(FIRST);
  return node;
}

function token(tokens, at, version, made) {
  const logprob = tokens.logprobs[at] ?? -Infinity;
  const node = el("span.token", null, visible(tokens.pieces[at]));
  node.style.setProperty("--doubt", String(Math.min(1, -logprob / 4)));
  node.told = () => [
    ["token", `${number(at + 1)} of ${number(tokens.pieces.length)}`],
    ["weights", `version ${number(version)}` + (made === null ? "" : `, ${number(made - 1 - version)} behind`)],
    ["probability", fixed(Math.exp(logprob), 3)],
    ["log p", fixed(logprob, 3)],
  ];
  return node;
}

export function tooltip() {
  const tip = el("div.tip", { hidden: true, role: "tooltip" });
  document.addEventListener("mouseover", (event) => {
    const over = event.target.closest?.(".token");
    tip.hidden = !over;
    if (!over) return;
    fill(tip, over.told().map(([name, value]) => [el("span", null, name), el("b", null, value)]));
    const place = over.getBoundingClientRect();
    tip.style.setProperty("left", Math.max(8, Math.min(place.left, innerWidth - tip.offsetWidth - 8)) + "px");
    tip.style.setProperty("top", (place.bottom + tip.offsetHeight + 10 > innerHeight ? place.top - tip.offsetHeight - 6 : place.bottom + 6) + "px");
  });
  return tip;
}

export function legend(versions, made) {
  return el("div.legend", null, el("span", null, "weights"), versions.map((version) => colour(el("span.version-chip", {
    title: made === null ? "updates in the weights" : `${made - 1 - version} updates behind the weights it trained` }, "v" + number(version)), version)));
}
