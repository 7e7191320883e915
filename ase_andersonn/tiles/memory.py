"""What an evaluation takes and what there is, in bytes."""

import os
from pathlib import Path

import torch

from ase_andersonn.engine.encoding import KEPT_ATOMS
from ase_andersonn.potentials.base import EnergyModel

GATE_ARRAYS = 4
"""Arrays of the size of the message gates that live at the same time: gates, those of the tiles, reversed, products."""
ROW_ARRAYS = 60
"""Arrays of the size of the features: windows of both solves, and what their steps take."""
EDGE_ARRAYS = 3
"""Arrays of the size of the gates while forces are found, beside these."""
TAPE_PER_EDGE = 720
"""Numbers kept for each edge where the derivatives of the encoding are kept, about, beside those of the gates."""
TAPE_PER_GATE = 2.5
TAPE_PER_HEARD_EDGE = 250
"""The same of what is heard, beside those of what is told."""
TAPE_PER_TOLD = 11
HEARD_ARRAYS = 2
"""Arrays of what is heard that live at the same time while forces are found, beside one more of the gates."""
PER_ATOM = {"energies": 8, "positions": 24, "bins": 16, "forces": 24, "stresses": 72}
"""Bytes of what is kept for each atom of the whole structure."""


def row_bytes(model: EnergyModel, n_neighbors: float, *, forces: bool) -> float:
    """Memory that one atom takes whose neighbourhood is encoded, solved for or not, about.

    Args:
        model: the model.
        n_neighbors: of an atom, with padding.
        forces: whether forces are wanted.
    """
    itemsize = next(model.parameters()).element_size()
    gates = GATE_ARRAYS + (EDGE_ARRAYS if forces else 0)
    numbers = gates * model.n_gates
    if forces and model.n_message:
        numbers += HEARD_ARRAYS * model.n_message + model.n_gates
    edges = n_neighbors * (numbers * itemsize + 120)  # neighbour lists, vectors and their like
    return edges + ROW_ARRAYS * model.n_channels * itemsize


def tape_bytes(model: EnergyModel, n_neighbors: float) -> float:
    """Memory of one atom's derivatives of the encoding where they are kept, about."""
    numbers = TAPE_PER_EDGE + TAPE_PER_GATE * model.n_gates
    if model.n_message:
        numbers += TAPE_PER_HEARD_EDGE + TAPE_PER_TOLD * model.n_message
    return n_neighbors * numbers * next(model.parameters()).element_size()


def atom_bytes(*, forces: bool, stress: bool) -> int:
    """Memory of the results and lists of one atom of a tiled structure."""
    names = ["energies", "positions", "bins"] + ["forces"] * forces + ["stresses"] * stress
    return sum(PER_ATOM[name] for name in names)


def estimate_memory(model: EnergyModel, n_atoms: int, n_neighbors: float, forces: bool) -> int:
    """Memory that an evaluation without tiles takes, about.

    Args:
        model: the model.
        n_atoms: number of atoms.
        n_neighbors: the most that an atom has.
        forces: whether forces are wanted.
    """
    per_atom = row_bytes(model, n_neighbors, forces=forces) + 250 * n_neighbors  # the neighbour list with its skin
    if forces and n_atoms <= KEPT_ATOMS:
        per_atom += tape_bytes(model, n_neighbors)
    return int(n_atoms * per_atom)


def available_memory(device: torch.device | str = "cpu") -> int:
    """Memory that this process may still take on a device: of the machine or its control group, or of the GPU."""
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
    """What the control group (a container's or a batch job's limit) leaves."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int(Path(limit).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return 1 << 62
