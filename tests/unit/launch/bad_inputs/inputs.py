"""Rows of `train`: data sets, models and run directories."""

import json
from typing import Any

from tests.unit.launch.bad_inputs.row import QUESTION, SHIPPED, Bad, Model

FILES = "data.kind=files data.train=q.jsonl"
LABELLED = f"train cpu rule=majority_vote {FILES}"


INDEX = json.dumps({"weight_map": {"model.norm.weight": "part-1.safetensors"}})


def with_values(name: str, **values: Any) -> str:
    """A file of the shipped model with other values."""
    return json.dumps(json.loads((SHIPPED / name).read_text()) | values)


def with_token(text: str, number: int) -> str:
    """The shipped tokenizer with one token more."""
    content = json.loads((SHIPPED / "tokenizer.json").read_text())
    content["model"]["vocab"][text] = number
    return json.dumps(content)


DATA = [
    Bad("train cpu data.levels=[9]", ("data.levels.0", "less than or equal to 3, got 9")),
    Bad("train cpu data.levels=[]", ("data.levels", "at least 1 item")),
    Bad("train cpu --data.kind file", ("--data.kind must be one of 'arithmetic', 'files', got 'file'",)),
    Bad("train cpu data.kind=files", ("data.kind files needs data.train",)),
    Bad("train cpu data.reader=verk", ("data.reader 'verk' does not exist", "did you mean verl?")),
    Bad(
        "train cpu data.train=q.jsonl", ("data.train q.jsonl is not read", "set data.kind files"), {"q.jsonl": QUESTION}
    ),
    Bad("train cpu data.heldout=q.jsonl", ("data.heldout q.jsonl is not read",), {"q.jsonl": QUESTION}),
    Bad("train cpu data.num_train=0", ("data.num_train", "got 0")),
    Bad(LABELLED, ("data.train=q.jsonl", "no such file")),
    Bad(LABELLED, ("data.train=q.jsonl", "no rows"), {"q.jsonl": ""}),
    Bad(LABELLED, ("data.train=q.jsonl: line 2 is not JSON",), {"q.jsonl": QUESTION + "{broken\n"}),
    Bad(LABELLED, ("data.train=q.jsonl: line 2 must be a JSON object, got list",), {"q.jsonl": QUESTION + "[]\n"}),
    Bad(LABELLED, ("data.train=q.jsonl", "needs a column `question`", "data.columns"), {"q.jsonl": '{"text": "1?"}\n'}),
    Bad(LABELLED, ("row 1", "must be a text that is not empty"), {"q.jsonl": QUESTION + '{"question": ""}\n'}),
    Bad(LABELLED, ("row 0", "must be a text", "got 5"), {"q.jsonl": '{"question": 5}\n'}),
    Bad(LABELLED, ("same id 'a'",), {"q.jsonl": '{"id": "a", "question": "x"}\n' * 2}),
    Bad(LABELLED, ("not UTF-8",), {"q.jsonl": '{"question": "ü"}\n'.encode("latin-1")}),
    Bad(LABELLED, ("q.jsonl",), {"q.jsonl": None}),
    Bad(LABELLED, ("max_prompt_tokens",), {"q.jsonl": '{"question": "' + "1 + " * 5000 + '1?"}\n'}),
    Bad(
        "train cpu rule=majority_vote data.kind=files data.train=q.csv",
        ("q.csv", "another number of fields"),
        {"q.csv": "question,answer\n1,2,3\n"},
    ),
    Bad(
        "train cpu rule=majority_vote data.kind=files data.train=q.json", ("q.json: not a JSON file",), {"q.json": "{"}
    ),
    Bad(
        "train cpu rule=majority_vote data.kind=files data.train=q.parquet",
        ("not a readable Parquet file",),
        {"q.parquet": "PAR0"},
    ),
    Bad(
        "train cpu rule=majority_vote data.kind=files data.train=q.txt",
        ("q.txt: the file must end in .parquet",),
        {"q.txt": "1?"},
    ),
    Bad("train cpu rule=majority_vote data.kind=files data.train=gsm8k", ("data.train=gsm8k", "a hub id has an owner")),
    Bad(
        f"{LABELLED} 'data.columns={{question: text}}'",
        ("data.columns names a column 'text'", "found"),
        {"q.jsonl": QUESTION},
    ),
    Bad(
        f"{LABELLED} 'data.columns={{questions: question}}'",
        ("data.columns", "no field 'questions'"),
        {"q.jsonl": QUESTION},
    ),
    Bad(
        f"train cpu rule=co_rewarding_i {FILES} data.rephrased=r.jsonl",
        ("data.train has 1 rows and data.rephrased 2",),
        {"q.jsonl": QUESTION, "r.jsonl": QUESTION * 2},
    ),
    Bad(f"train cpu rule=co_rewarding_i {FILES}", ("rephrased",), {"q.jsonl": QUESTION}),
    Bad(f"{LABELLED} data.heldout=h.jsonl", ("data.heldout=h.jsonl", "no such file"), {"q.jsonl": QUESTION}),
    Bad(
        f"{LABELLED} data.heldout=h.jsonl",
        ("data.heldout", "answer"),
        {"q.jsonl": QUESTION, "h.jsonl": '{"question": "2?"}\n'},
    ),
    Bad(f"train cpu rule=ground_truth {FILES}", ("ground_truth", "answer"), {"q.jsonl": '{"question": "1 + 1?"}\n'}),
    Bad("train cpu engine.kind=scripted engine.script=no.jsonl rule=majority_vote", ("engine.script", "no.jsonl")),
]

MODELS = [
    Bad(
        "train cpu --learner.lora.rank 8 --learner.lora.targets q_proj query",
        ("learner.lora.targets: query matches no linear layer", "models/arithmetic-base", "q_proj", "or all-linear"),
    ),
    Bad("train cpu model.path=nope", ("model.path=nope", "no such folder")),
    Bad("train cpu model.path=m", ("model.path m", "no model configuration can be read there"), {"m": None}),
    Bad("train cpu model.path=m.txt", ("model.path=m.txt",), {"m.txt": "x"}),
    Bad("train cpu model.path=m", ("model.path", "tokenizer cannot be loaded"), {"m": Model({"tokenizer.json": "{"})}),
    Bad("train cpu model.path=m", ("model.path m", "config.json"), {"m": Model({"config.json": "{"})}),
    Bad("train cpu model.path=m", ("model.path",), {"m": Model({"config.json": None})}),
    Bad(
        "train cpu model.path=m", ("generation_config.json is not JSON",), {"m": Model({"generation_config.json": "{"})}
    ),
    Bad("train cpu model.path=m", ("model.path", "chat template"), {"m": Model({"chat_template.jinja": "{% if %}"})}),
    Bad(
        "train cpu model.path=m",
        ("model.path m has neither model.safetensors nor model.safetensors.index.json", "save the model"),
        {"m": Model({"model.safetensors": None})},
    ),
    Bad(
        "train cpu model.path=m",
        ("model.safetensors was cut or damaged", "download or copy it again"),
        {"m": Model({"model.safetensors": (SHIPPED / "model.safetensors").read_bytes()[:100_000]})},
    ),
    Bad(
        "train cpu model.path=m",
        ("names 1 of 1 files that are missing: part-1.safetensors", "it holds weights.safetensors instead"),
        {"m": Model({"model.safetensors": None, "model.safetensors.index.json": INDEX, "weights.safetensors": "x"})},
    ),
    Bad(
        "train cpu model.path=m",
        (
            "the weights do not fit config.json",
            "mlp.gate_proj.weight has shape [320, 128], expected [1024, 128]",
            "take both from the same model",
        ),
        {"m": Model({"config.json": with_values("config.json", intermediate_size=1024)})},
    ),
    Bad(
        "train cpu model.path=m",
        ("its architecture is PhiForCausalLM", "the learner trains ArceeForCausalLM, "),
        {"m": Model({"config.json": with_values("config.json", model_type="phi", architectures=["PhiForCausalLM"])})},
    ),
    Bad(
        "train cpu model.path=m",
        ("its tokenizer has 1 tokens, the first is 'chess' with id 4000", "vocab_size in config.json is", "same model"),
        {"m": Model({"tokenizer.json": with_token("chess", 4000)})},
    ),
]
