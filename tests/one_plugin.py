"""A plug-in of one file, with a rule, a reader and a metric, data for its reader, and the words of a run of two updates with them."""

import json

PLUGIN = """
import corewarding as cw

GROUP = ("original", "policy")


@cw.reward_rule("digits", groups=[GROUP])
def digits(rollouts, context):
    rewards = [sum(letter.isdigit() for letter in completion.text) for completion in rollouts.group(*GROUP)]
    return [cw.without_label(rollouts, trained=GROUP, rewards=rewards)]


@cw.question_reader("semicolons")
def semicolons(row):
    number, _, text = row["line"].partition(";")
    return cw.Entry(id=number, text=text)


@cw.question_metric("mine/digits_mean")
def digits_mean(questions):
    return (float(reward) for group in questions.scored for reward in group.rewards)
"""
WORDS = [
    "--plugins", "rules.py", "--rule", "digits", "--data.kind", "files", "--data.train", "lines.csv", "--data.reader", "semicolons",
    "--rollout.group-size", "4", "--rollout.max-new-tokens", "16", "--train.questions-per-update", "4", "--train.updates", "2",
    "--rollout.cpus-per-actor", "0.25", "--learner.cpus-per-rank", "0.25", "--run.root", "mine",
]  # fmt: skip


def write_plugin(folder, text=PLUGIN):
    """The plug-in and data in its own format."""
    (folder / "rules.py").write_text(text)
    lines = "".join(
        f'"{n};A shop had {n + 50} coins and sold {n}. How many does it still have?"\n' for n in range(2, 34)
    )
    (folder / "lines.csv").write_text("line\n" + lines)


def updates_of(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "update"]


def check(run):
    """The run used all three."""
    rows = updates_of(run)
    assert len(rows) == 2
    for row in rows:
        assert abs(row["mine/digits_mean"] - row["reward/mean"]) < 1e-6
        assert row["reward/mean"] > 1
