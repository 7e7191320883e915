"""Keep the small part of a training run, with which another machine goes on.

python state.py keep       # run/ → state/
python state.py restore    # state/ → run/

Left out are the optimiser's moments, which are gathered anew within some hundred steps, and the distribution of the
training environments, which is measured anew whenever a model is written.
"""

import shutil
import sys
from pathlib import Path

from ase_andersonn.potentials.base import ENVIRONMENT_BUFFERS
from ase_andersonn.pretrained.catalog import CHECKPOINT
from ase_andersonn.training.progress import METRICS
from ase_andersonn.training.run_checkpoint import read_checkpoint, write_checkpoint

HERE = Path(__file__).parent
MEASURED_AGAIN = tuple(f"model/{name}" for name in ENVIRONMENT_BUFFERS)
RUN, STATE = HERE / "run", HERE / "state"


def keep(run: Path = RUN, state: Path = STATE) -> None:
    tensors, position = read_checkpoint(run / CHECKPOINT)
    state.mkdir(exist_ok=True)
    small = {name: t for name, t in tensors.items() if not name.startswith(("optimizer/", *MEASURED_AGAIN))}
    write_checkpoint(state / CHECKPOINT, small, position)
    shutil.copy(run / METRICS, state / METRICS)


def restore(run: Path = RUN, state: Path = STATE) -> None:
    run.mkdir(exist_ok=True)
    for name in (CHECKPOINT, METRICS):
        shutil.copy(state / name, run / name)


if __name__ == "__main__":
    {"keep": keep, "restore": restore}[sys.argv[1]]()
