"""Co-rewarding I, II and III (arXiv 2508.00410): another group elects the label of each trained group, so a policy cannot raise its
reward by agreeing with itself. They are majority votes with another source of labels (`label.from`); no rule here reads the data
set's answers.
"""

from __future__ import annotations

from corewarding.rewards.rules.contract import judged
from corewarding.rewards.rules.labels import majority

RULES = (
    # Each wording is rewarded by the policy's vote on the other wording.
    judged("co_rewarding_i", majority, "other_view"),
    # The original wording is rewarded by the teacher's vote on it.
    judged("co_rewarding_ii", majority, "teacher"),
    # Each wording is rewarded by the teacher's vote on the other wording.
    judged("co_rewarding_iii", majority, "teacher_other_view"),
)
