// Puts list, filters and question together, and follows the address.

import { el, fill, number, plural, visible } from "./dom.js";
import { change, filterOf, linkTo, onChange, state } from "./state.js";
import { filterPanel } from "./filters.js";
import { askingList } from "./list.js";
import { runPage } from "./live/page.js";
import { questionPage } from "./question.js";
import { source } from "./source.js";
import { tooltip } from "./tokens.js";

const POLL_MS = 1000;
const runPicker = el("select.run", { "aria-label": "run", onchange: () => change({ run: runPicker.value, n: "" }) });
const otherPicker = el("select.run.of-samples", { "aria-label": "compare with", onchange: () => change({ with: otherPicker.value }) });
const colours = el("select.of-samples", { "aria-label": "colour of tokens", onchange: () => change({ colour: colours.value }, { replace: true }) },
  el("option", { value: "" }, "colour by weights"), el("option", { value: "importance" }, "colour by importance weight"),
  el("option", { value: "probability" }, "colour by probability"), el("option", { value: "none" }, "no colour"));
const facts = el("span.facts");
const count = el("div.count", { role: "status" });
const problem = el("p.problem", { hidden: true });
const detail = el("div.detail", { tabIndex: 0 });
const panel = filterPanel();
const live = runPage();
const links = { samples: el("a", null, "Samples"), run: el("a", null, "Run") };
const list = askingList((row) => change({ id: row.id, n: row.again ? String(row.n) : "" }));
let runs = [];
let asked = new AbortController();
const page = () => (state.page === "run" ? "run" : "samples");

function currentRun() {
  return runs.find((run) => run.name === state.run) || runs[0];
}

function showRuns() {
  const run = currentRun();
  document.body.dataset.page = page();
  for (const [name, link] of Object.entries(links)) {
    link.href = linkTo({ page: name === "run" ? "run" : "" });
    if (name === page()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const options = () => runs.map((one) => el("option", { value: one.name }, `${visible(one.name)} \u00b7 ${visible(one.rule)}`));
  if (runPicker.options.length !== runs.length) {
    fill(runPicker, options());
    fill(otherPicker, el("option", { value: "" }, "compare with \u2026"), options());
  }
  otherPicker.hidden = runs.length < 2;
  runPicker.value = run.name;
  otherPicker.value = state.with || "";
  colours.value = state.colour || "";
  document.body.dataset.colour = state.colour || "version";
  fill(facts, plural(run.askings, "question") + ", ", plural(run.completions, "completion"),
    run.updates[1] === null ? "" : `, ${plural(run.updates[1], "update")}${run.planned ? ` of ${number(run.planned)}` : ""}`,
    run.is_read || run.problem ? null : el("span.reading", null, "reading the journal \u2026"));
  const notes = [run.problem, ...run.notes].filter(Boolean);
  problem.hidden = !notes.length;
  fill(problem, notes.map((note) => el("span", null, visible(note))));
  panel.show(run);
}

async function showList(options) {
  if (page() === "run") return;
  asked.abort();
  asked = new AbortController();
  const run = currentRun();
  const shown = location.hash;
  try {
    const numbers = await source.samples(run.name, filterOf(state), asked.signal);
    list.show(run.name, numbers, options);
    count.classList.remove("error");
    fill(count, plural(numbers.length, "question"), numbers.length === run.askings ? "" : ` of ${number(run.askings)}`);
    count.dataset.shown = shown;
  } catch (error) {
    if (error.name === "AbortError") return;
    count.classList.add("error");
    fill(count, error.message);
  }
}

async function pageOf(run, which) {
  return questionPage(run, await source.asking(run, which));
}

const QUESTION = ["id", "n", "run", "with"];
const shownNow = () => QUESTION.map((name) => state[name]).join("|");

async function showQuestion() {
  const shown = shownNow();
  if (!state.id) return fill(detail, welcome());
  const run = currentRun().name;
  const pages = [pageOf(run, state.n ? { n: state.n } : { id: state.id })];
  if (state.with) pages.push(pageOf(state.with, { id: state.id }).catch(() => pageOf(state.with, { id: state.id.replace(/\/e\d+$/, "") })));
  const made = await Promise.all(pages.map((page) => page.catch((error) => el("article.question", null, el("p.problem", null, error.message)))));
  if (shownNow() !== shown) return undefined;
  detail.classList.toggle("two", made.length > 1);
  fill(detail, made);
  detail.scrollTop = 0;
  return undefined;
}

async function showRunPage() {
  try {
    await live.load();
  } catch (error) {
    problem.hidden = false;
    fill(problem, error.message);
  }
}

function welcome() {
  return el("div.welcome", null, el("p", null, "Choose a question in the list."),
    el("p.note", null, el("kbd", null, "j"), " next ", el("kbd", null, "k"), " previous ", el("kbd", null, "/"), " search"));
}

async function step(by) {
  const row = await list.neighbour(by);
  if (row) change({ id: row.id, n: row.again ? String(row.n) : "" });
}

const seen = () => runs.map((run) => [run.askings, run.updates[1], run.is_read, run.problem, run.notes.length].join()).join("|");

async function poll() {
  const before = seen();
  runs = await source.runs();
  const isNew = seen() !== before;
  if (page() === "run" && (isNew || live.isGoingOn() || runs.some((run) => !run.is_read))) await live.load();
  if (isNew) {
    showRuns();
    list.forget();
    await showList({ keep: true });
  }
}

function changed(before) {
  showRuns();
  if (page() === "run") {
    showRunPage();
    return;
  }
  const same = (names) => names.every((name) => before[name] === state[name]);
  const sameFilter = before.page === state.page && JSON.stringify(filterOf(before)) === JSON.stringify(filterOf(state)) && before.run === state.run;
  if (sameFilter) list.draw();
  else showList();
  if (!same([...QUESTION, "page"])) showQuestion();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const keys = { j: () => step(1), k: () => step(-1), "/": () => panel.focus() };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

async function begin() {
  document.body.append(
    el("header.top", null, el("span.brand", null, "corewarding"), el("nav.nav", null, links.samples, links.run), runPicker, otherPicker, facts,
      el("span.spring"), colours,
      el("button.of-samples", { type: "button", title: "previous (k)", onclick: () => step(-1) }, "\u2039 previous"),
      el("button.of-samples", { type: "button", title: "next (j)", onclick: () => step(1) }, "next \u203a")),
    problem, el("main.of-samples", null, el("aside", null, panel.node, count, list.node), detail), live.node, tooltip());
  for (runs = await source.runs(); !runs.length; runs = await source.runs()) {
    problem.hidden = false;
    fill(problem, "The run has not asked a question yet. This page shows it as soon as it has.");
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  onChange(changed);
  showRuns();
  await showList();
  await (page() === "run" ? showRunPage() : showQuestion());
  document.body.dataset.ready = "yes";
  if (!source.isFile) setInterval(() => poll().catch(() => fill(facts, el("span.error", null, "the viewer has ended"))), POLL_MS);
}

begin().catch((error) => { fill(problem, error.message); problem.hidden = false; });
