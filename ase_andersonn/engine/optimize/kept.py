"""What was measured of the ways to run a model on one machine, and which was chosen, in the user's cache.

A file is named by the digest of all that the choice depends on (`dependencies`), which it repeats, and holds a checksum
of the rest: one that is damaged, of another machine or another version counts as none.
"""

import dataclasses
import hashlib
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ase_andersonn import __version__
from ase_andersonn.atomic_write import atomic_write
from ase_andersonn.config import CompileMode
from ase_andersonn.engine.native import library
from ase_andersonn.potentials.base import EnergyModel

logger = logging.getLogger(__name__)

MODES: dict[str, CompileMode] = {"eager": False, "native": "native", "inductor": True}
"""Compile mode of each kind of candidate: PyTorch's operations, kernels in C++, PyTorch's compiler."""
MAX_BLOCK = 2**24


@dataclass(frozen=True)
class Candidate:
    """A way to run a model, and what was measured of it.

    Attributes:
        name: one of `MODES`.
        block: atoms whose encoding is computed at once.
        small_us, large_us: time of energy, forces and stress, µs/atom, of the small and the large structure; None
            where it was not timed.
        build_s: seconds that a compiler took.
        energy_error, forces_error, stress_error: largest differences from eager results, eV/atom, eV/Å, eV/Å³.
        verdict: `"chosen"`, or why not.
    """

    name: str
    block: int
    verdict: str
    small_us: float | None = None
    large_us: float | None = None
    build_s: float = 0.0
    energy_error: float | None = None
    forces_error: float | None = None
    stress_error: float | None = None


@dataclass(frozen=True)
class Choice:
    """The candidates of a model on a machine, one of which is chosen.

    Attributes:
        candidates: in the order of measurement.
        n_atoms: of the small and the large structure.
    """

    candidates: tuple[Candidate, ...]
    n_atoms: tuple[int, int]

    @property
    def chosen(self) -> Candidate:
        """The candidate that was chosen."""
        return next(candidate for candidate in self.candidates if candidate.verdict == "chosen")

    def has_timed(self, name: str) -> bool:
        """Whether candidates of a kind were timed, rather than left out."""
        return any(candidate.name == name and candidate.large_us is not None for candidate in self.candidates)


_unwritten: dict[str, Choice] = {}
"""Choices of this process that the cache did not take, by the digest of their dependencies."""


def dependencies(model: EnergyModel, device: torch.device) -> dict[str, str]:
    """All that a choice depends on: model, device and processor, threads, compiler, versions."""
    digest = hashlib.sha256(repr((type(model).__qualname__, model.config)).encode())
    for name, tensor in sorted(model.state_dict().items()):  # in float32, whatever precision a calculator asks for
        digest.update(name.encode() + tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    try:
        kernels = library.library_path().stem  # the digest of their source and the processor
    except RuntimeError:  # no cache folder
        kernels = "none"
    return {
        "model": digest.hexdigest(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": str(torch.get_num_threads()),
        "kernels": kernels,
        "compiler": library.find_compiler() or "none",
        "torch": torch.__version__,
        "ase-andersonn": __version__,
    }


def kept_choice(model: EnergyModel, device: torch.device) -> Choice | None:
    """The choice made on this machine before, or None."""
    facts = dependencies(model, device)
    try:
        return _unwritten.get(_digest(facts)) or _parsed(choice_path(facts).read_bytes(), facts)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        logger.info("the kept choice is not used: %s", error)
        return None


def keep_choice(choice: Choice, model: EnergyModel, device: torch.device) -> str:
    """Keep a choice, in this process alone where the cache cannot be written.

    Returns:
        why it cannot; empty where it can.
    """
    facts = dependencies(model, device)
    body = {"dependencies": facts, **dataclasses.asdict(choice)}
    try:
        path = choice_path(facts)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps({**body, "sha256": _digest(body)}, indent=1).encode())
    except (OSError, RuntimeError) as error:
        _unwritten[_digest(facts)] = choice
        return str(error)
    _unwritten.pop(_digest(facts), None)
    return ""


def choice_path(facts: dict[str, str]) -> Path:
    """The file of a choice. Raises RuntimeError without a cache folder."""
    return library.cache_folder() / f"choice-{_digest(facts)[:32]}.json"


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _parsed(text: bytes, facts: dict[str, str]) -> Choice:
    """The choice in a file; ValueError, TypeError or KeyError for any other content."""
    body = json.loads(text)
    if body.pop("sha256") != _digest(body) or body.pop("dependencies") != facts:
        raise ValueError("it is damaged, or of another machine")
    candidates = tuple(Candidate(**entry) for entry in body["candidates"])
    choice = Choice(candidates, tuple(body["n_atoms"]))
    if sum(candidate.verdict == "chosen" for candidate in candidates) != 1:
        raise ValueError("none is chosen")
    block = choice.chosen.block
    if choice.chosen.name not in MODES or not isinstance(block, int) or not 0 < block <= MAX_BLOCK:
        raise ValueError(f"{choice.chosen.name} in blocks of {block!r} is no candidate")
    return choice


def log_mean(candidate: Candidate) -> float:
    """Mean logarithm of the two times, by which candidates are compared; infinite where there are none."""
    if candidate.small_us is None or candidate.large_us is None:
        return math.inf
    return 0.5 * (math.log(candidate.small_us) + math.log(candidate.large_us))
