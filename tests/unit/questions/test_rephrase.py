"""Which replies are accepted as another wording."""

import pytest

from corewarding.questions.rephrase import BEGIN, END, Refusal, read_reply, rephrase_prompt

QUESTION = "Ann has 12 apples and eats 5 of them. How many apples does she keep?"
GOOD = "A basket held 12 pears until 5 were taken out. What number of pears stayed in it?"


def reply(wording):
    return f"{BEGIN}\n{wording}\n{END}"


def test_the_prompt_holds_the_question_and_the_markers():
    prompt = rephrase_prompt(r"Find {x} with \frac{1}{2}")  # braces are not fields
    assert r"Find {x} with \frac{1}{2}" in prompt
    assert BEGIN in prompt
    assert END in prompt


def test_a_good_reply_is_its_wording():
    assert read_reply(QUESTION, reply(GOOD)) == GOOD
    thinking = f"<think>perhaps {BEGIN}no{END}</think> {reply(GOOD)}"
    assert read_reply(QUESTION, thinking) == GOOD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, "markers"),
        (f"{BEGIN}{GOOD}", "markers"),
        (f"{END}{GOOD}{BEGIN}", "markers"),
        (reply(GOOD) + reply(GOOD), "markers"),
        (reply(""), "empty"),
        (reply(QUESTION.upper()), "identical"),
        (reply(GOOD.replace("12", "13")), "number lost"),
        (reply(GOOD + " They cost 40 cents."), "number new"),
        (reply("12 minus 5?"), "much shorter"),
        (reply(GOOD + " so" * 80), "much longer"),
        (reply(GOOD + " The answer is seven."), "answers"),
        (reply(GOOD + r" \boxed{7}"), "answers"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(text, reason):
    found = read_reply(QUESTION, text)
    assert isinstance(found, Refusal)
    assert found.reason == reason
