"""The sentences of the arithmetic world: every problem kind as pairs of templates (original, rephrased).

Text only; `questions.arithmetic` fills the slots. Invariant: no template occurs on both sides, and the two sides of a
pair, filled alike, have a Jaccard similarity of at most 0.5 over their lower-cased words and numbers.
"""

from __future__ import annotations

from typing import Literal

Operation = Literal["add", "subtract", "multiply", "add_subtract", "subtract_add", "multiply_add", "multiply_subtract"]

NAMES = ("Tom", "Ann", "Sam", "Mia", "Ben", "Eva", "Max", "Zoe")
THINGS = ("apples", "books", "coins", "cards", "shells", "stamps", "marbles", "eggs")

WORDINGS: dict[Operation, tuple[tuple[str, str], ...]] = {
    "add": (
        (
            "{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have now?",
            "Find the total when {b} new {thing} join the {a} that {name} owned.",
        ),
        (
            "A box holds {a} {thing} and a bag holds {b}. How many {thing} are there in all?",
            "Count everything together: {b} {thing} from one bag plus {a} from another.",
        ),
        (
            "{name} read {a} pages on Monday and {b} on Tuesday. How many pages did {name} read?",
            "Over two days {name} finished {a} and then {b} pages. What is the sum?",
        ),
        (
            "There are {a} {thing} on the table. {name} adds {b}. How many are there now?",
            "With {b} put beside the first {a}, what number of {thing} will we see?",
        ),
    ),
    "subtract": (
        (
            "{name} has {a} {thing} and gives away {b}. How many {thing} are left?",
            "Out of {a} {thing}, {b} went to a friend. What remains for {name}?",
        ),
        (
            "A shop had {a} {thing} and sold {b}. How many {thing} does it still have?",
            "Customers bought {b} from the stock of {a} {thing}. Find the rest.",
        ),
        (
            "{name} is {a} and has a brother of {b}. How many years older is {name}?",
            "What age gap lies between {name}, aged {a}, and someone aged {b}?",
        ),
        (
            "There were {a} birds in a tree and {b} flew away. How many birds stayed?",
            "If {b} leave the flock of {a} birds, what number is still sitting?",
        ),
    ),
    "multiply": (
        (
            "{name} has {a} boxes with {b} {thing} each. How many {thing} are there in all?",
            "Every box contains {b} {thing}. What do {a} of them hold together?",
        ),
        (
            "One ticket costs {a} dollars. How much do {b} tickets cost?",
            "Find the price of {b} passes at {a} dollars apiece.",
        ),
        (
            "There are {a} rows of {b} chairs. How many chairs are there?",
            "A hall seats {b} people per line. With {a} such lines, what is the total?",
        ),
        (
            "{name} runs {a} miles every day. How many miles is that in {b} days?",
            "Over {b} days, at {a} miles daily, what distance does {name} cover?",
        ),
    ),
    "add_subtract": (
        (
            "{name} has {a} {thing}, buys {b} more and gives away {c}. How many are left?",
            "To {a} {thing} we add {b}, then {name} loses {c}. What remains?",
        ),
        (
            "A bus has {a} people. Then {b} get on and {c} get off. How many are inside?",
            "With {b} riders boarding and {c} leaving, what do {a} passengers become?",
        ),
        (
            "{name} saved {a} dollars, earned {b} and spent {c}. How much is left?",
            "From {a} plus {b} dollars, {c} went to the shop. What does {name} keep?",
        ),
    ),
    "subtract_add": (
        (
            "{name} had {a} {thing}, lost {b} and then found {c}. How many are there now?",
            "Take {b} from {a} {thing}, put {c} back, and give the final count.",
        ),
        (
            "A tank held {a} liters. We used {b} and poured in {c}. How many liters are in it?",
            "After {b} of the {a} liters drain, {c} flow back. What volume results?",
        ),
        (
            "There were {a} cars. Then {b} left and {c} came. How many cars are there?",
            "Find the cars in a lot of {a} when {b} drive off before {c} arrive.",
        ),
    ),
    "multiply_add": (
        (
            "{name} has {a} boxes of {b} {thing} and {c} loose ones. How many {thing} in all?",
            "Each pack stores {b} {thing}. With {c} extra, what do {a} packs give?",
        ),
        (
            "One pen costs {a} dollars. How much are {b} pens and a bag for {c}?",
            "Find the bill: {b} pencils priced {a} each, plus {c} for something else.",
        ),
        (
            "{name} does {a} tasks a day for {b} days, then {c} more. How many is that?",
            "Work of {a} daily jobs over {b} days plus {c} extra: what is the sum?",
        ),
    ),
    "multiply_subtract": (
        (
            "{name} fills {a} bags with {b} {thing} each and loses {c}. How many are left?",
            "Without the {c} that went missing, what do {a} packs of {b} {thing} hold?",
        ),
        (
            "There are {a} rows of {b} seats and {c} are taken. How many are free?",
            "A hall has {a} lines with {b} places. When {c} people sit, what stays empty?",
        ),
        (
            "{name} earns {a} dollars an hour for {b} hours and spends {c}. How much is left?",
            "Paid {a} hourly over {b} hours, {name} uses {c} dollars. Find the rest.",
        ),
    ),
}
