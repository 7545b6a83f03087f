// One asking in full.

import { colour, el, fill, fixed, number, plural, short, signed, visible } from "./dom.js";
import { linkTo } from "./state.js";
import { source } from "./source.js";
import { legend, plainText, tokenText } from "./tokens.js";

const VIEWS = { original: "original wording", rephrased: "rephrased wording" };
const WORDS = { trained: "trained", withheld: "withheld from the loss", voted: "voted only", dropped: "dropped", waiting: "waiting" };

export function questionPage(run, asking) {
  const node = el("article.question", null, head(asking), wordings(asking), verdicts(asking),
    el("div.groups", null, asking.groups.map((group) => groupSection(run, asking, group))), others(asking));
  return node;
}

function head(asking) {
  const versions = [...new Set(asking.groups.flatMap((group) => group.completions.flatMap((one) => [one.first, one.last])))];
  const fate = WORDS[asking.fate] + (asking.reason ? ": " + asking.reason.replaceAll("_", " ") : "");
  return el("header.question-head", null,
    el("h1", null, visible(asking.question)),
    el("div.facts", null, el("span", null, "epoch " + number(asking.epoch)),
      asking.made === null ? null : el("span", null, "update " + number(asking.made)),
      el("span", null, fate), asking.again ? el("span.badge.dim", null, "made again by a later start") : null,
      el("span", null, visible(asking.rule)), el("span.run-name", null, visible(asking.run))),
    legend(versions.sort((a, b) => a - b), asking.made));
}

function wordings(asking) {
  const asked = new Set(asking.groups.map((group) => group.view));
  const cards = Object.keys(VIEWS).map((view) => {
    const text = asking.wordings[view];
    if (!text && !asked.has(view)) return null;
    const note = asked.has(view) ? null : el("span.note", null, "not asked by this rule");
    const body = text ? el("p.wording", null, visible(text)) : el("p.wording", { "data-prompt": view }, "\u2026");
    return el("section.card" + (asked.has(view) ? "" : ".faint"), null, el("h2", null, VIEWS[view], note), body);
  });
  const gold = el("section.card.gold", null, el("h2", null, "data set's answer"),
    asking.gold === null ? el("p.note", null, "not known here") : el("p.answer", null, visible(asking.gold)));
  return el("div.wordings", null, cards, gold);
}

function verdicts(asking) {
  return el("div.verdicts", null, asking.groups.filter((group) => group.scored).map((group) => {
    const title = el("span.verdict-of", null, `label of ${group.source}, ${group.view}`);
    const from = group.heard.length ? el("span.note", null, "from the vote of " + group.heard.map((one) => one.split("/").reverse().join(", ")).join(" and ")) : null;
    if (group.label === null) {
      const why = group.abstained ? "the vote abstained: " + (group.why_abstained || "") : "the rule rewards without a label";
      return el("p.verdict" + (group.abstained ? ".warn" : ""), null, title, el("b", null, group.abstained ? "none" : "\u2013"), el("span", null, why), from);
    }
    const known = asking.gold_key !== null;
    const right = known && group.label_key === asking.gold_key;
    return el("p.verdict" + (known ? (right ? ".good" : ".bad") : ""), null, title, el("b", null, short(group.label, 200)),
      known ? el("span", null, right ? "\u2713 the data set's answer" : "\u2717 wrong: the answer is " + short(asking.gold, 80)) : null, from);
  }));
}

function groupSection(run, asking, group) {
  const cards = group.completions.map((one) => completionCard(asking, group, one));
  const unknown = el("p.note.unknown", { hidden: true });
  const section = el("section.group." + group.source, null,
    el("h2.group-head", null, el("span.source", null, group.source), VIEWS[group.view],
      el("span.note", null, plural(group.completions.length, "completion"))), unknown,
    voteTable(asking, group), cards.map((card) => card.node));
  const load = async () => {
    const found = await source.tokens(run, asking.n, group.view, group.source);
    cards.forEach((card, at) => card.show(found[at]));
    const why = found.find((one) => one.missing)?.missing;
    unknown.hidden = !why;
    fill(unknown, visible(why || ""));
    const prompt = found[0]?.prompt;
    section.closest(".question")?.querySelectorAll(`[data-prompt="${group.view}"]`).forEach((place) => fill(place, visible(prompt || "its text is not known here")));
  };
  const watch = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    load().catch((error) => section.append(el("p.problem", null, error.message)));
  }, { rootMargin: "600px" });
  watch.observe(section);
  return section;
}

function voteTable(asking, group) {
  const vote = group.vote;
  const size = group.completions.length;
  const votes = asking.groups.some((one) => one.heard.includes(`${group.view}/${group.source}`));
  const key = (indices) => group.completions.find((one) => one.i === indices[0])?.key;
  const rows = vote.classes.map(([answer, indices], at) => el("tr" + (at === 0 ? ".most" : ""), null,
    el("td.answer", null, short(answer, 80)),
    el("td.bar", null, bar(indices.length / size, asking.gold_key === null ? "" : key(indices) === asking.gold_key ? "good" : "other")),
    el("td.count", null, number(indices.length)),
    el("td.note", null, [at === 0 && vote.answer !== null && votes ? "elected" : "", asking.gold_key !== null && key(indices) === asking.gold_key ? "right" : ""]
      .filter(Boolean).join(", "))));
  const without = size - vote.voters;
  if (without) rows.push(el("tr.without", null, el("td.answer", null, "no answer"), el("td.bar", null, bar(without / size, "none")),
    el("td.count", null, number(without)), el("td.note")));
  return el("table.vote", null, el("caption", null, `vote: share ${fixed(vote.share, 2)} of ${plural(vote.voters, "voter")}`), el("tbody", null, rows));
}

function bar(share, kind) {
  const node = el("span.fill" + (kind ? "." + kind : ""));
  node.style.setProperty("width", 100 * share + "%");
  return node;
}

function completionCard(asking, group, one) {
  const body = el("div.body", null, plainText(one.text));
  const right = asking.gold_key === null || one.key === null ? "" : one.key === asking.gold_key ? ".good" : ".bad";
  const fate = WORDS[one.fate] + (one.reason ? ": " + one.reason.replaceAll("_", " ") : "");
  const more = el("dl.reading");
  const details = el("details", null, el("summary", null, "how the answer was read"), more);
  const label = one.answer === null ? el("span.answer-chip.none", null, "no answer") : el("span.answer-chip" + right, null, short(one.answer, 60));
  const agrees = group.label_key !== null && one.key !== null && one.key === group.label_key;
  const node = el("section.completion", null,
    el("div.completion-head", null, el("span.index", null, "#" + one.i), label,
      agrees ? el("span.note", { title: "in the label's class" }, "= label") : null,
      one.reward === null ? null : el("span.number", { title: "reward" }, "r " + fixed(one.reward, 2)),
      one.advantage === null ? null : el("span.number" + (one.advantage > 0 ? ".up" : one.advantage < 0 ? ".down" : ""), { title: "advantage" }, "A " + signed(one.advantage, 2)),
      one.weight === null || one.weight === 1 ? null : el("span.number", { title: "factor of its loss" }, "\u00d7" + fixed(one.weight, 2)),
      el("span.spring"), one.truncated ? el("span.badge.warn", { title: "ended at the token limit" }, "truncated") : null,
      el("span.note", null, plural(one.tokens, "token")),
      colour(el("span.version-chip", { title: "updates in the weights that wrote it" }, one.first === one.last ? "v" + one.first : `v${one.first} \u2192 v${one.last}`), one.last),
      el("span.fate." + one.fate, null, fate)),
    body, details);
  const describe = (rows) => fill(more, rows.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [el("dt", null, name), el("dd", null, visible(String(value)))]));
  const reading = one.reading || {};
  const rows = [["found in", one.found], ["answer", one.answer], ["kind", reading.kind], ["key", one.key],
    ["tokens", (reading.tokens || []).map(([kind, text]) => `${kind} ${text}`).join(", ")], ["tree", reading.tree], ["note", reading.note]];
  describe(rows);
  return {
    node,
    show(tokens) {
      if (!tokens) return;
      if (tokens.pieces) fill(body, tokenText(tokens, asking.made));
      describe([...rows, ["sampled by", `${tokens.actor}, attempt ${tokens.attempt + 1}, ${fixed(tokens.seconds, 2)} s, temperature ${tokens.temperature}`],
        ["importance", tokens.learnt ? (tokens.learnt.recomputed ? "computed again from the journal" : "recorded by the learner") : null]]);
    },
  };
}

function others(asking) {
  if (!asking.others.length) return null;
  return el("section.others", null, el("h2", null, "the same question, asked at other times"),
    asking.others.map((one) => el("a.chip", { href: linkTo({ id: one.id, n: one.n }) },
      (one.made === null ? one.fate : "update " + number(one.made)) + (one.again ? ", made again" : ""))));
}
