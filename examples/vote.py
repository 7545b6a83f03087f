"""From completions to a label, step by step: extract answers, compare them by value, vote."""

import corewarding as cw

completions = [
    r"Half of it is left. \boxed{\frac12}",
    r"1 - 0.5 = 0.5, so \boxed{0.5}",
    r"There are three parts, hence \boxed{1/3}",
    "I do not know.",
]

answers = [cw.extract_answer(text) for text in completions]
print("answers:", answers)
print("keys:   ", [None if answer is None else cw.canonical_key(answer).key for answer in answers])

vote = cw.majority_vote(answers)
print(vote)
print("rewards:", [float(answer is not None and cw.same_answer(answer, vote.answer)) for answer in answers])

print("a vote below min_share elects nothing:", cw.majority_vote(answers, min_share=0.9).answer)
print("graded against 2/4:", [cw.grade(answer, r"\frac{2}{4}") for answer in answers])
