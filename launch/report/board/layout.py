"""The charts of TensorBoard's page "Custom Scalars": what belongs together in one picture, in the order of the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corewarding.launch.report.board.tags import declared

CHARTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "learning": {
        "is it getting better? (held out, against its own reward)": ("eval_quick/greedy", "eval/greedy", "reward/mean"),
        "right answers while training": ("reward/policy_accuracy_frac", "label/accuracy_frac"),
        "entropy": ("policy/entropy",),
        "KL to the reference": ("kl/mean",),
    },
    "labels": {
        "do labels know more than the policy?": ("label/accuracy_frac", "reward/policy_accuracy_frac"),
        "agreement": ("label/share_mean", "vote/share_mean", "vote/agreement_teacher_policy_frac"),
        "no label": ("label/abstained_frac",),
    },
    "staleness": {
        "age of what is trained": ("staleness/question_mean", "staleness/max", "staleness/label_mean"),
        "where it comes from": ("staleness/in_flight_mean", "staleness/in_buffer_mean"),
    },
    "correction": {
        "mismatch": ("mismatch/k3",),
        "what correction and clip change": (
            "correction/truncated_frac",
            "loss/clip_high_frac",
            "loss/clip_low_frac",
        ),
        "share of the batch that counts": ("correction/ess_frac",),
    },
    "throughput": {
        "completions per second": ("throughput/completions_per_s",),
        "who waits?": ("time/learner_idle_frac", "rollout_{source}/idle_frac"),
        "seconds of an update": ("time/total_s", "time/update_s", "time/learner_wait_s", "time/publish_s"),
    },
    "health": {
        "collapse: each of these has an alarm": (
            "vote/top_answer_frac",
            "vote/no_answer_frac",
            "length/truncated_frac",
            "length/repetition_mean",
        ),
        "groups with no advantage": ("advantage/num_zero_{cause}",),
        "dropped": ("ledger/num_dropped", "ledger/num_failed_questions"),
    },
}
"""Page to title to tags."""


def charts() -> dict[str, dict[str, list[str]]]:
    """CHARTS with regular expressions of the names on the board in place of tags."""
    by_name = {one.name: one for one in declared()}
    return {
        page: {
            title: [rf"^{by_name[tag].number}_{by_name[tag].page}/{_plain(by_name[tag].pattern)}$" for tag in tags]
            for title, tags in pictures.items()
        }
        for page, pictures in CHARTS.items()
    }


def _plain(pattern: str) -> str:
    """Without names of groups, which a browser's regular expressions write in another way."""
    return pattern.replace("?P<source>", "").replace("?P<cause>", "")
