// Where the samples come from: the server that served this page.

async function ask(name, query, signal) {
  const answer = await fetch("api/" + name + "?" + new URLSearchParams(query), { signal });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || answer.statusText);
  return found;
}

export const source = {
  isFile: false,
  runs: () => ask("runs", {}),
  samples: async (run, filter, signal) => (await ask("samples", { run, ...filter }, signal)).numbers,
  rows: (run, numbers) => ask("rows", { run, n: numbers.join(",") }),
  asking: (run, which) => ask("asking", { run, ...which }),
  board: () => ask("board", {}),
  live: (run, wanted) => ask("live", { run, ...wanted }),
  tokens: (run, n, view, sampler) => ask("tokens", { run, n, view, source: sampler }),
};
