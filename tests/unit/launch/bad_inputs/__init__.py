"""The table of bad inputs."""

from tests.unit.launch.bad_inputs.commands import COMMANDS, EVALS, OTHERS, RUNS
from tests.unit.launch.bad_inputs.configurations import CONFIG_FILES, KEYS, WORDS
from tests.unit.launch.bad_inputs.inputs import DATA, MODELS
from tests.unit.launch.bad_inputs.sweeps import SWEEPS

REFUSED_BY_PARSING = [*COMMANDS, *WORDS, *CONFIG_FILES, *KEYS]
REFUSED_LATER = [*DATA, *MODELS, *RUNS, *EVALS, *OTHERS, *SWEEPS]
