// The tokens of a completion, coloured by the weights that wrote them, by importance weight or by probability.

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
  const learnt = tokens.learnt && learnerOf(tokens);
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
      span.append(token(tokens, learnt, shown, version, made));
    }
    if (shown < tokens.pieces.length)
      node.append(el("button.more", { type: "button", onclick: () => show(tokens.pieces.length) },
        `show the other ${number(tokens.pieces.length - shown)} tokens`));
  };
  show(FIRST);
  return node;
}

// What the learner made of token `at`, from the whole numbers that launch/view/tokens/learnt.py sends.
function learnerOf({ learnt, logprobs }) {
  const above = (values, at) => !values || values[at] === null || logprobs[at] === null ? null : logprobs[at] + values[at] / 1e3;
  const words = [];
  let run = -1;
  return (at) => {
    for (; run + 1 < learnt.loss.length && learnt.loss[run + 1][0] <= at; run += 1) words.push(learnt.loss[run + 1][1]);
    const ratio = learnt.ratio === null || learnt.ratio[at] === null ? null : learnt.ratio[at] / 1e4;
    return { policy: above(learnt.policy, at), proximal: ratio === null ? null : above(learnt.proximal || learnt.policy, at),
      ratio, weight: ratio === null || !learnt.weight ? ratio : learnt.weight[at] / 1e4, loss: words.at(-1) };
  };
}

function token(tokens, learnt, at, version, made) {
  const logprob = tokens.logprobs[at] ?? -Infinity;
  const node = el("span.token", null, visible(tokens.pieces[at]));
  node.style.setProperty("--doubt", String(Math.min(1, -logprob / 4)));
  const own = learnt && learnt(at);
  if (own) {
    const lean = own.weight === null ? 0 : Math.max(-1, Math.min(1, Math.log2(own.weight)));
    node.style.setProperty("--lean", String(Math.abs(lean)));
    node.classList.add(lean < 0 ? "under" : "over");
    node.classList.toggle("cut", own.weight !== own.ratio);
    node.classList.toggle("idle", own.loss !== "trained");
  }
  node.told = () => [
    ["token", `${number(at + 1)} of ${number(tokens.pieces.length)}`],
    ["weights", `version ${number(version)}` + (made === null ? "" : `, ${number(made - 1 - version)} behind`)],
    ["probability", fixed(Math.exp(logprob), 3)],
    ["log p, sampler", fixed(logprob, 3)],
    ...(own ? [["log p, learner", told(own.policy)], ["log p, proximal", told(own.proximal)], ["importance ratio", told(own.ratio)],
      ["weight", own.ratio === own.weight ? told(own.weight) : `${told(own.ratio)} \u2192 ${told(own.weight)}`], ["loss", own.loss]] : []),
  ];
  return node;
}

const told = (value) => value === null ? "\u2013" : fixed(value, 3);

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
  return [el("div.legend.of-version", null, el("span", null, "weights"), versions.map((version) => colour(el("span.version-chip", {
    title: made === null ? "updates in the weights" : `${made - 1 - version} updates behind the weights it trained` }, "v" + number(version)), version))),
    el("div.legend.of-importance", null, el("span", null, "importance weight"), el("span.key.under", null, "\u00bd and less"),
      el("span.key", null, "1"), el("span.key.over", null, "2 and more"), el("span.key.cut", null, "truncated"),
      el("span.key.idle", null, "no gradient"))];
}
