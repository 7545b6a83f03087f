"""Rows of the other commands."""

from tests.unit.launch.bad_inputs.row import QUESTION, Bad

COMMANDS = [
    Bad("trian", ("unknown command 'trian'", "did you mean train?")),
    Bad("''", ("unknown command ''", "there are train")),
    Bad("--nope", ("unknown command '--nope'",)),
    Bad("TRAIN", ("unknown command 'TRAIN'", "there are train")),
]

RUNS = [
    Bad("resume", ("resume needs RUN", "corewarding resume runs/cpu")),
    Bad("resume --train.updates 80", ("resume needs RUN",)),
    Bad("resume r", ("r/config.yaml: unknown key rul", "did you mean rule?"), {"r/config.yaml": "rul: entropy\n"}),
    Bad("resume r --train.lrr 1", ("--train.lrr", "did you mean --train.lr?"), {"r/config.yaml": "rule: entropy\n"}),
    Bad("resume no", ("no is no run directory",)),
    Bad("resume r", ("r is no run directory",), {"r": None}),
    Bad(
        "train cpu run.root=r run.name=a",
        ("a is not empty and holds no run of ours", "choose another run.name"),
        {"r/a/thesis.tex": "x"},
    ),
    Bad("export", ("export needs RUN", "--out")),
    Bad("export no --out x", ("no holds no committed checkpoint",)),
    Bad("export r --out x", ("r holds no committed checkpoint",), {"r": None}),
    Bad("export r --out x --which both", ("--which must be one of 'policy', 'teacher', got 'both'",)),
    Bad("runs no", ("ROOT=no: no such folder", "corewarding train cpu")),
    Bad("compare r", ("compare needs OTHER",), {"r/config.yaml": "rule: entropy\n"}),
    Bad("compare no r", ("RUN=no is no run directory", "`corewarding runs`"), {"r/config.yaml": "rule: entropy\n"}),
    Bad("compare r no", ("OTHER=no is no run directory",), {"r/config.yaml": "rule: entropy\n"}),
    Bad("compare r r", ("r/config.yaml is empty or garbled",), {"r/config.yaml": ""}),
    Bad("trace no", ("no/trace.jsonl does not exist",)),
    Bad("trace r", ("r/trace.jsonl is empty",), {"r/trace.jsonl": ""}),
    Bad("trace r", ("r/trace.jsonl: line 1 is damaged",), {"r/trace.jsonl": "x\n"}),
    Bad("trace r --seconds 0", ("--seconds", "greater than 0, got 0")),
    Bad("trace r --seconds nan", ("--seconds", "finite number, got nan")),
    Bad("journal", ("journal needs RUN",)),
    Bad("journal no", ("RUN=no: no such folder", "give a run directory")),
    Bad("journal r", ("RUN=r is no run directory", "holds no config.yaml"), {"r": None}),
    Bad("journal r", ("RUN=r holds no journal yet", "corewarding resume r"), {"r/config.yaml": "rule: entropy\n"}),
    Bad(
        "journal r",
        ("journal.retain is off", "--journal.retain all"),
        {"r/config.yaml": "rule: entropy\njournal: {retain: 'off'}\n"},
    ),
    Bad("journal r", ("r/journal holds no start of a run", "resume it"), {"r/journal": None}),
    Bad("journal r", ("segment-000001.cwj is no journal",), {"r/journal/segment-000001.cwj": "thesis\n"}),
    Bad("journal r --diff no", ("--diff=no: no such folder",), {"r/journal": None}),
    Bad("journal r --diff r --fate trained", ("--diff compares all", "leave out --fate"), {"r/journal": None}),
    Bad("journal r --by question --source policy", ("leave out --source or --by question",)),
    Bad("journal r --update 0", ("--update", "greater than or equal to 1, got 0")),
    Bad("journal r --limit -1", ("--limit", "greater than or equal to 0, got -1")),
    Bad("journal r --fate lost", ("--fate must be", "'lost'")),
]

EVALS = [
    Bad("eval", ("eval needs MODEL",)),
    Bad("eval nope", ("MODEL=nope", "no such folder")),
    Bad(
        "eval models/arithmetic-base --data maths500", ("--data", "'maths500' does not exist", "did you mean math500?")
    ),
    Bad("eval models/arithmetic-base --data nonsense", ("--data", "there are math500", "a hub id like")),
    Bad("eval models/arithmetic-base --data no.jsonl", ("--data=no.jsonl", "no such file")),
    Bad("eval models/arithmetic-base --data q.jsonl", ("--data=q.jsonl", "line 1 is not JSON"), {"q.jsonl": "x\n"}),
    Bad("eval models/arithmetic-base --num-questions -5", ("--num-questions", "greater than or equal to 1, got -5")),
    Bad("eval models/arithmetic-base --num-questions 99999999", ("--num-questions", "less than or equal to 1000000")),
    Bad("eval models/arithmetic-base extra", ("unknown words: extra",)),
    Bad(
        "eval models/arithmetic-base --data q.jsonl", ("--data", "1 have no answer"), {"q.jsonl": '{"question": "x"}\n'}
    ),
    Bad("eval r", ("unknown key rul", "did you mean rule?"), {"r/config.yaml": "rul: entropy\n"}),
    Bad("eval models/arithmetic-base --num_questions 0", ("--num-questions", "got 0")),
    Bad("eval models/arithmetic-base --num-questions many", ("--num-questions must be", "'many'")),
    Bad("eval models/arithmetic-base --samples -1", ("--samples", "got -1")),
    Bad("eval models/arithmetic-base --temperature 0", ("--temperature", "greater than 0, got 0")),
    Bad("eval models/arithmetic-base --max-new-tokens 99999", ("--max-new-tokens=99999", "lower --max-new-tokens to")),
    Bad("eval models/arithmetic-base --fallbacks x", ("--fallbacks must be one of 'hashes', 'phrase', got 'x'",)),
    Bad("eval models/arithmetic-base --engine.kind vlm", ("engine.kind", "did you mean vllm?")),
    Bad("eval models/arithmetic-base --engine.slots 0", ("engine.slots", "got 0")),
    Bad("eval models/arithmetic-base --config nope", ("no recipe 'nope'",)),
    Bad("eval models/arithmetic-base --plugins no.py", ("no file no.py",)),
    Bad(
        "eval models/arithmetic-base --out f/x --num-questions 1",
        ("--out f/x cannot be written", "choose another --out"),
        {"f": "a file"},
    ),
    Bad(
        "eval models/arithmetic-base --out f --num-questions 1",
        ("f is not empty and holds no evaluation",),
        {"f/x": "1"},
    ),
    Bad("eval --regrade", ("eval --regrade needs FOLDER",)),
    Bad("eval --regrade no", ("no holds no evaluation",)),
    Bad("eval --regrade e", ("manifest.json is damaged",), {"e/manifest.json": "{", "e/generations.jsonl": ""}),
    Bad("eval --regrade e", ("its format is 99",), {"e/manifest.json": '{"format": 99}', "e/generations.jsonl": ""}),
    Bad("eval --compare a", ("eval --compare needs OTHER",)),
    Bad("eval --compare a b", ("a holds no evaluation",)),
]

OTHERS = [
    Bad("data inspekt", ("data has one subcommand, inspect, not 'inspekt'",)),
    Bad("data inspect", ("data inspect needs SOURCE",)),
    Bad("data inspect nope", ("SOURCE=nope", "no such file")),
    Bad("data inspect q.jsonl", ("SOURCE=q.jsonl: line 1 is not JSON",), {"q.jsonl": "x\n"}),
    Bad("data inspect q.jsonl --rephrased r.jsonl", ("--rephrased=r.jsonl", "no such file"), {"q.jsonl": QUESTION}),
    Bad(
        "data inspect q.jsonl --rephrased r.jsonl",
        ("SOURCE has 1 rows and --rephrased 2",),
        {"q.jsonl": QUESTION, "r.jsonl": QUESTION * 2},
    ),
    Bad("data inspect q.jsonl --model no", ("--model=no", "no such folder"), {"q.jsonl": QUESTION}),
    Bad("data inspect q.jsonl --examples -1", ("--examples", "got -1"), {"q.jsonl": QUESTION}),
    Bad("data inspect d --split x", ("SOURCE=d",), {"d": None}),
    Bad("rephrase", ("rephrase needs SOURCE", "--out")),
    Bad("rephrase q.jsonl --out o", ("needs a model", "--model FOLDER", "--endpoint URL"), {"q.jsonl": QUESTION}),
    Bad("rephrase q.jsonl --out o --model a --endpoint b", ("either --model",), {"q.jsonl": QUESTION}),
    Bad(
        "rephrase q.jsonl --out o --endpoint http://127.0.0.1:9",
        ("--endpoint needs --endpoint-model",),
        {"q.jsonl": QUESTION},
    ),
    Bad(
        "rephrase q.jsonl --out o --endpoint-model m --endpoint http://127.0.0.1:9",
        ("--endpoint http://127.0.0.1:9 cannot be reached", "start the server"),
        {"q.jsonl": QUESTION},
    ),
    Bad(
        "rephrase q.jsonl --out o --endpoint-model m --endpoint localhost",
        ("--endpoint localhost is no address", "http://host:port"),
        {"q.jsonl": QUESTION},
    ),
    Bad("rephrase q.jsonl --out o --model no", ("--model=no", "no such folder"), {"q.jsonl": QUESTION}),
    Bad(
        "rephrase q.jsonl --out o --model models/arithmetic-base --limit 0", ("--limit", "got 0"), {"q.jsonl": QUESTION}
    ),
    Bad(
        "rephrase q.jsonl --out o --model models/arithmetic-base --attempts 0",
        ("--attempts", "got 0"),
        {"q.jsonl": QUESTION},
    ),
    Bad(
        "rephrase q.jsonl --out q.jsonl --model models/arithmetic-base --max-new-tokens 8",
        ("--out q.jsonl cannot be written",),
        {"q.jsonl": QUESTION},
    ),
    Bad("init", ("init needs FILE",)),
    Bad("init my", ("my must end in .yaml",)),
    Bad("init my.yaml", ("my.yaml exists already",), {"my.yaml": "x"}),
    Bad("init my.yaml --from nope", ("no recipe 'nope'",)),
    Bad("init f/my.yaml", ("f/my.yaml cannot be written",), {"f": "a file"}),
    Bad("recipes nope", ("nope",)),
    Bad("doctor extra", ("unknown words: extra",)),
    Bad("doctor --python x=1", ("--python x=1", "KIND one of vllm, sglang")),
    Bad("doctor --python vllm=/no/python", ("--python vllm=/no/python: there is no such program",)),
    Bad("doctor --plugins nope", ("plug-in nope cannot be imported",)),
    Bad("completion", ("completion needs {bash,zsh}",)),
    Bad("completion fish", ("must be one of 'bash', 'zsh', got 'fish'",)),
    Bad("submit", ("submit needs a configuration",)),
    Bad("submit nope", ("no recipe 'nope'",)),
    Bad("submit cpu --adress x", ("--adress", "did you mean --address?")),
    Bad(
        "submit cpu --address http://127.0.0.1:9", ("no Ray cluster answers at http://127.0.0.1:9", "--address", "8265")
    ),
    Bad("submit cpu --address ray://127.0.0.1:9", ("ray://127.0.0.1:9", "must be like http://host:port")),
    Bad("submit cpu --address http://127.0.0.1:99999", ("http://127.0.0.1:99999", "Port out of range")),
    Bad("submit cpu", ("http://127.0.0.1:9",), env={"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}),
    Bad("submit cpu --train.updates 0", ("train.updates", "got 0")),
]
