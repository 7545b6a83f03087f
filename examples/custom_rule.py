"""A reward rule of your own: the group's majority vote, minus a little for long completions."""

import dataclasses

import numpy as np

import corewarding as cw

GROUP = ("original", "policy")  # the question's original wording, answered by the policy


@cw.reward_rule("short_majority", groups=[GROUP])
def short_majority(rollouts, context):
    group = cw.judge_by_vote(rollouts, context, trained=GROUP, voters=GROUP)
    lengths = np.array([len(completion.token_ids) for completion in group.completions])
    return [dataclasses.replace(group, rewards=group.rewards - 0.2 * lengths / lengths.max())]


if __name__ == "__main__":
    mine = {"rule": "short_majority", "plugins": [__file__], "run": {"name": "short-majority"}}
    recipe = cw.recipe("cpu").override(**mine, train={"updates": 2}, eval={"num_questions": 32})
    print(cw.train(recipe).metrics()[["update", "reward/mean", "length/tokens_mean"]])
