"""Your own questions: a CSV file with columns of your own names. Rules that label themselves need no answers."""

import csv
import random

import corewarding as cw

draw = random.Random(0)
with open("shop.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["number", "task"])
    for number in range(64):
        have, sell = draw.randint(40, 90), draw.randint(2, 39)
        writer.writerow([number, f"A shop had {have} coins and sold {sell}. How many coins does it still have?"])

recipe = cw.recipe("cpu").override(
    rule="co_rewarding_ii",
    data={"kind": "files", "train": "shop.csv", "columns": {"id": "number", "question": "task"}},
    train={"updates": 2, "questions_per_update": 16},
    run={"name": "own-data"},
)
run = cw.train(recipe)
print(run.samples(update=2).query("source == 'policy'")[["text", "answer", "label", "reward"]].head())
print("labels read:", run.summary["labels_read"])
