"""Memory that an evaluation needs, and memory available, in bytes."""

import os
from pathlib import Path

import torch

from ase_andersonn.engine.encoding import KEPT_ATOMS
from ase_andersonn.potentials.base import EnergyModel

GATE_ARRAYS = 4
"""Simultaneous arrays of the size of the message gates: gates, tiles' gates, reversed gates, products."""
ROW_ARRAYS = 60
"""Simultaneous arrays of the size of the features: Anderson windows of both solves, temporaries of a step."""
EDGE_ARRAYS = 3
"""Further arrays of the size of the gates during the computation of forces."""
TAPE_PER_EDGE = 720
"""Numbers per edge, about, if the derivatives of the encoding are kept, in addition to those of the gates."""
TAPE_PER_GATE = 2.5
TAPE_PER_MESSAGE_EDGE = 250
"""The same for messages before the solve, in addition to `TAPE_PER_MESSAGE` per channel."""
TAPE_PER_MESSAGE = 11
MESSAGE_ARRAYS = 2
"""Simultaneous arrays of these messages during the computation of forces, besides one more of the gates."""
BYTES_PER_ATOM = {"energies": 8, "positions": 24, "bins": 16, "forces": 24, "stresses": 72}
"""Bytes of results and lists per atom of a tiled structure."""


def row_bytes(model: EnergyModel, n_neighbors: float, *, forces: bool) -> float:
    """Approximate memory of an atom with encoded neighbourhood, solved for or not, bytes.

    Args:
        model: the model.
        n_neighbors: neighbours of an atom, with padding.
        forces: whether forces are wanted.
    """
    itemsize = next(model.parameters()).element_size()
    gates = GATE_ARRAYS + (EDGE_ARRAYS if forces else 0)
    numbers = gates * model.n_gates
    if forces and model.n_message:
        numbers += MESSAGE_ARRAYS * model.n_message + model.n_gates
    edges = n_neighbors * (numbers * itemsize + 120)  # neighbour lists, vectors
    return edges + ROW_ARRAYS * model.n_channels * itemsize


def tape_bytes(model: EnergyModel, n_neighbors: float) -> float:
    """Approximate memory of the kept derivatives of the encoding per atom, bytes."""
    numbers = TAPE_PER_EDGE + TAPE_PER_GATE * model.n_gates
    if model.n_message:
        numbers += TAPE_PER_MESSAGE_EDGE + TAPE_PER_MESSAGE * model.n_message
    return n_neighbors * numbers * next(model.parameters()).element_size()


def atom_bytes(*, forces: bool, stress: bool) -> int:
    """Memory of results and lists per atom of a tiled structure, bytes."""
    names = ["energies", "positions", "bins"] + ["forces"] * forces + ["stresses"] * stress
    return sum(BYTES_PER_ATOM[name] for name in names)


def estimate_memory(model: EnergyModel, n_atoms: int, n_neighbors: float, forces: bool) -> int:
    """Approximate memory of an evaluation without tiles, bytes.

    Args:
        model: the model.
        n_atoms: number of atoms.
        n_neighbors: largest number of neighbours of an atom.
        forces: whether forces are wanted.
    """
    per_atom = row_bytes(model, n_neighbors, forces=forces) + 250 * n_neighbors  # the neighbour list with its skin
    if forces and n_atoms <= KEPT_ATOMS:
        per_atom += tape_bytes(model, n_neighbors)
    return int(n_atoms * per_atom)


def available_memory(device: torch.device | str = "cpu") -> int:
    """Memory available to this process, bytes: of the machine or its control group, or of the GPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_of_machine(), _of_group())


def _of_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        return pages * os.sysconf("SC_PAGE_SIZE") // 2 if pages > 0 else 4 << 30


def _of_group() -> int:
    """Bytes left by the limit of the control group (a container or a batch job)."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int(Path(limit).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return 1 << 62
