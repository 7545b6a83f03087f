// Where the samples come from in a file of --out: the page itself.

async function held() {
  const bytes = Uint8Array.from(atob(document.getElementById("samples").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

const all = held();
const runsHeld = all.then((one) => one.runs);
const found = async (run) => (await runsHeld)[run];

const ORDERS = {
  update: (a, b) => (a.made ?? Infinity) - (b.made ?? Infinity) || a.n - b.n,
  newest: (a, b) => b.n - a.n,
  reward: (a, b) => (a.mean ?? Infinity) - (b.mean ?? Infinity) || a.n - b.n,
  share: (a, b) => (a.share ?? -1) - (b.share ?? -1) || a.n - b.n,
};

// The same filters as launch/view/search/.
function fits(row, asking, filter, matches) {
  if (filter.fate && row.fate !== filter.fate) return false;
  if (filter.question && row.question !== filter.question) return false;
  if (filter.wrong && !row.wrong) return false;
  if (filter.abstained && !row.abstained) return false;
  if (filter.swapped && !row.swapped) return false;
  if (filter.differ && !row[filter.differ + "_differ"]) return false;
  if (!filter.again && row.again) return false;
  if (filter.update_from && !(row.made !== null && row.made >= +filter.update_from)) return false;
  if (filter.update_to && !(row.made !== null && row.made <= +filter.update_to)) return false;
  const onCompletion = filter.truncated || filter.reward_from || filter.reward_to;
  if (!onCompletion && !matches) return true;
  const own = matches && [row.id, ...Object.values(asking.wordings), ...row.labels].some((text) => text && matches(text));
  return asking.groups.some((group) => group.completions.some((one) =>
    (!filter.truncated || one.truncated) &&
    (!filter.reward_from || (one.reward !== null && one.reward >= +filter.reward_from)) &&
    (!filter.reward_to || (one.reward !== null && one.reward <= +filter.reward_to)) &&
    (!matches || own || matches(one.text) || (one.answer !== null && matches(one.answer))))) || Boolean(own && !onCompletion);
}

function matcher(filter) {
  if (!filter.search) return null;
  const words = filter.regex ? filter.search : filter.search.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const expression = new RegExp(words, "iu");
  return (text) => expression.test(text);
}

export const source = {
  isFile: true,
  runs: async () => Object.values(await runsHeld).map((run) => run.about),
  async samples(run, filter) {
    const { rows, askings } = await found(run);
    const matches = matcher(filter);
    return rows.filter((row, at) => fits(row, askings[at], filter, matches)).sort(ORDERS[filter.order || "update"]).map((row) => row.n);
  },
  async rows(run, numbers) {
    const wanted = new Set(numbers);
    return (await found(run)).rows.filter((row) => wanted.has(row.n));
  },
  async asking(run, which) {
    const { askings } = await found(run);
    const fit = which.n ? askings.filter((one) => one.n === +which.n)
      : askings.filter((one) => one.id === which.id || one.question === which.id);
    if (!fit.length) throw new Error(`this file holds no question ${which.id || which.n} of ${run}`);
    return fit.at(-1);
  },
  board: async () => (await all).board,
  live: async (run) => (await found(run)).live,
  tokens: async (run, n, view, sampler) => (await found(run)).tokens[n][`${view}/${sampler}`],
};
