"""Build, check and time the ways to run a model on this machine, and keep the fastest that gives eager's results."""

import math
import time
from dataclasses import replace

import torch

from ase_andersonn.backends import exact_matmul, find_compiler, own_torch_state
from ase_andersonn.engine.encoding import default_block
from ase_andersonn.engine.native import library
from ase_andersonn.engine.native.model import has_kernel
from ase_andersonn.potentials.base import EnergyModel

from .kept import MODES, Candidate, Choice, keep_choice, kept_choice, log_mean
from .trial import Trial

BLOCKS, BLOCKS_CUDA = (64, 256, 512, 1024), (4096, 16384, 65536)
"""Atoms in a block that are tried, on a CPU and a GPU."""
GAIN = 0.03
"""Share of the time by which another block size has to be faster than the default."""


def optimized(model: EnergyModel, device: torch.device) -> Choice:
    """The choice kept for a model on this machine, made first where there is none; see `optimize`."""
    return kept_choice(model, device) or optimize(model, device)[0]


@own_torch_state()
def optimize(model: EnergyModel, device: torch.device, *, inductor: bool = False) -> tuple[Choice, str]:
    """Measure the ways to run a model on this machine, choose one, and keep the choice.

    Kinds of candidates (`kept.MODES`) are compared by the geometric mean of their times on a small and a large
    structure; of the fastest, block sizes by the time on the large one. Results are compared in both precisions, times
    are of float32.

    Args:
        model: the model; it stays as it is.
        device: where it will run.
        inductor: whether PyTorch's compiler, which takes minutes, is among the candidates.

    Returns:
        the choice, and why it is kept in this process alone; empty where the cache holds it.

    Raises:
        RuntimeError: where eager results of this model do not converge.
    """
    blocks = BLOCKS if device.type == "cpu" else BLOCKS_CUDA
    with exact_matmul():
        trial = Trial(model, device)
        kinds = trial.timed([trial.checked(_built(name, model, device, inductor)) for name in MODES])
        best = min(kinds, key=log_mean)
        sizes = [best]
        if best.name != "inductor":  # which would compile again
            others = [trial.checked(Candidate(best.name, size, "")) for size in blocks if size != best.block]
            sizes = trial.timed([best, *others])
    choice = Choice(tuple(_judged(kinds, sizes)), trial.n_atoms)
    return choice, keep_choice(choice, model, device)


def _built(name: str, model: EnergyModel, device: torch.device, inductor: bool) -> Candidate:
    """A candidate with what its build took; its verdict says why where it cannot be tried."""
    why, begun = "", time.perf_counter()
    if name == "native" and not has_kernel(model, device):
        why = f"no kernels for a {type(model).__name__} on {device}"
    elif name == "native":
        try:
            if not library.is_built():
                library.build()
            why = "" if library.load() else "the kernels cannot be loaded"
        except (OSError, RuntimeError) as error:
            why = str(error).splitlines()[0]
    elif name == "inductor":
        why = "not asked for, as it takes minutes"
        if inductor:
            backend, reason = find_compiler(device)
            why = "" if backend else reason
    return Candidate(name, default_block(device, MODES[name]), why, build_s=time.perf_counter() - begun)


def _judged(kinds: list[Candidate], sizes: list[Candidate]) -> list[Candidate]:
    """All candidates with a verdict; `sizes` begins with the fastest kind at the default block size."""
    default = sizes[0]
    fastest = min(sizes, key=_large)
    chosen = fastest if _large(fastest) < (1.0 - GAIN) * _large(default) else default
    than = "slower than" if chosen is not default else f"not {GAIN:.0%} faster than"

    def judged(candidate: Candidate) -> Candidate:
        other = f"{than} blocks of {chosen.block}" if candidate.name == chosen.name else f"slower than {chosen.name}"
        return replace(candidate, verdict=candidate.verdict or ("chosen" if candidate is chosen else other))

    return [judged(candidate) for candidate in (*(k for k in kinds if k.name != default.name), *sizes)]


def _large(candidate: Candidate) -> float:
    return math.inf if candidate.large_us is None else candidate.large_us
