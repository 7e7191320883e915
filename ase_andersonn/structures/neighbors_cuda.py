"""Neighbour search on the GPU with nvalchemi-toolkit-ops (extra ``gpu``).

Pairs are found once and duplicated in the opposite direction, as in `neighbors`, for all structures of a batch at once.
"""

from collections.abc import Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from .convert import SAME_SITE
from .neighbors import Floats


class DeviceEdges(NamedTuple):
    """Edges of a batch, as `neighbors.Edges` with atom indices of the batch; all on one device.

    Args:
        center: int64 [n_edges], sorted.
        other: int64 [n_edges].
        reverse: int64 [n_edges].
        vectors: float64 [n_edges, 3], Å.
    """

    center: Tensor
    other: Tensor
    reverse: Tensor
    vectors: Tensor

    @property
    def on_one_site(self) -> bool:
        """Whether two atoms share a site; `convert.check_sites` finds which."""
        return bool((self.vectors.square().sum(1) < SAME_SITE**2).any())


def finds_edges_on(device: torch.device) -> bool:
    """Whether the device can search neighbours: a CUDA device with nvalchemi-toolkit-ops installed."""
    return device.type == "cuda" and _has_nvalchemi()


@cache
def _has_nvalchemi() -> bool:
    return find_spec("nvalchemiops") is not None and find_spec("nvalchemiops.torch") is not None


def device_edges(systems: Sequence[Atoms], cutoff: float, device: torch.device) -> DeviceEdges:
    """Edges of a batch of structures shorter than the cutoff (Å), found on the device."""
    from nvalchemiops.torch.neighbors import neighbor_list  # type: ignore[import-not-found,unused-ignore]

    boxed = [_boxed(atoms, cutoff) for atoms in systems]
    n_per_system = torch.tensor([len(atoms) for atoms in systems])
    start = torch.cat((n_per_system.new_zeros(1), n_per_system.cumsum(0)))
    system = torch.arange(len(systems)).repeat_interleave(n_per_system).to(device)
    find = partial(
        neighbor_list,
        torch.from_numpy(np.concatenate([positions for positions, _ in boxed])).to(device),
        cutoff,
        cell=torch.from_numpy(np.stack([box for _, box in boxed])).to(device),
        pbc=torch.from_numpy(np.stack([atoms.pbc for atoms in systems])).to(device),
        batch_idx=system.int(),
        batch_ptr=start.to(device, torch.int32),
        half_fill=True,
    )
    neighbors, count, shifts = find()
    most = int(count.max())
    if most > neighbors.shape[1]:  # more neighbours than the library's estimate
        neighbors, count, shifts = find(max_neighbors=most)
    first, column = (torch.arange(neighbors.shape[1], device=device) < count[:, None]).nonzero(as_tuple=True)
    second, offset = neighbors[first, column].long(), shifts[first, column].double()
    positions = torch.from_numpy(np.concatenate([atoms.positions for atoms in systems])).to(device)
    cells = torch.from_numpy(np.stack([atoms.cell.array for atoms in systems])).to(device)
    shift = (offset[:, None] @ cells[system[first]]).squeeze(1)
    return _both_directions(first, second, positions[second] - positions[first] + shift)


def _both_directions(first: Tensor, second: Tensor, vectors: Tensor) -> DeviceEdges:
    n_pairs = len(first)
    center, order = torch.sort(torch.cat((first, second)), stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(2 * n_pairs, device=order.device))
    return DeviceEdges(
        center=center,
        other=torch.cat((second, first))[order],
        reverse=place.roll(n_pairs)[order],
        vectors=torch.cat((vectors, -vectors))[order],
    )


def _boxed(atoms: Atoms, cutoff: float) -> tuple[Floats, Floats]:
    """Positions and an invertible cell, with a box larger than the atoms' extent along open directions."""
    positions, cell, pbc = atoms.positions.copy(), atoms.cell.array.copy(), atoms.pbc
    across = np.linalg.svd(cell[pbc])[2][pbc.sum() :]  # unit vectors perpendicular to the periodic ones
    for axis, unit in zip(np.flatnonzero(~pbc), across, strict=True):
        height = positions @ unit
        positions += (cutoff - height.min()) * unit
        cell[axis] = (np.ptp(height) + 2.0 * cutoff) * unit
    return positions, cell
