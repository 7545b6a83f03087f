"""A run from Python, also in a notebook: start from a recipe, change a few keys, train, look at what the run left."""

import corewarding as cw

recipe = cw.recipe("cpu").override(
    train={"updates": 3, "lr": 1e-4},
    data={"num_train": 256},
    eval={"num_questions": 32, "samples": 2},
    run={"name": "from-python"},
)
run = cw.train(recipe)  # as `corewarding train cpu --train.updates 3 ...`

print(run.metrics()[["update", "reward/mean", "loss/total", "staleness/max"]])
print(run.evaluations()[["update", "kind", "greedy"]])
print("before", run.summary["before"]["greedy"], "after", run.summary["after"]["greedy"])
print("model for from_pretrained:", run.model)

again = cw.load_run(run.folder)  # any time later
print(again.samples(update=3).query("source == 'policy'")[["question", "answer", "label", "reward"]].head())
