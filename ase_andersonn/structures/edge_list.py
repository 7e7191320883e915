"""Graph of an edge list that another program made, such as LAMMPS, torch-sim or i-PI."""

from typing import Any

import torch
from torch import Tensor

from .convert import SAME_SITE, check_sites
from .graph import Graph, pad_edges
from .neighbors import Edges

MAX_OFFSET = 1 << 20
"""Largest lattice translation; three of them then fit into an int64."""


def graph_from_edges(
    numbers: Any,
    positions: Any,
    cell: Any,
    center: Any,
    other: Any,
    offset: Any,
    system: Any = None,
    *,
    pbc: Any = True,
    charge: Any = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Graph:
    """Graph of one structure or several, from a full neighbour list in any order.

        d = positions[other] + offset @ cell - positions[center]

    A list is full if it has both directions of every pair: (i, j, S) and (j, i, -S). Edges longer than a model's
    cutoff cost time and change nothing. The graph lies on the device of `positions` and does not depend on the order
    of the edges.

    Args:
        numbers: int [n_atoms], atomic numbers.
        positions: [n_atoms, 3], Å, float64 where possible; atoms may lie outside the cell.
        cell: [3, 3] or [n_systems, 3, 3], lattice vectors as rows, Å.
        center: int [n_edges], atom to which the edge belongs.
        other: int [n_edges], its neighbour.
        offset: int [n_edges, 3], lattice translations added to the neighbour's position.
        system: int [n_atoms], sorted, structure of each atom; None for one structure.
        pbc: bool, [3] or [n_systems, 3], periodic directions; for the volume only, without which there is no stress.
        charge: one number or [n_systems], total charge, e.
        dtype: precision of the graph.

    Raises:
        ValueError: for wrong shapes, indices out of range, edges between structures, edges that are there twice or
            without their reverse (as in a half list), and two atoms on one site.
    """
    where = positions.device if isinstance(positions, Tensor) else torch.device("cpu")

    def tensor(values: Any, kind: torch.dtype) -> Tensor:
        return torch.as_tensor(values, device=where).to(kind)

    x, h = tensor(positions, torch.float64), tensor(cell, torch.float64)
    z, i, j, shift = (tensor(values, torch.int64) for values in (numbers, center, other, offset))
    k = torch.zeros_like(z) if system is None else tensor(system, torch.int64)
    h = h[None] if h.ndim == 2 else h
    _check_shapes(z, x, h, i, j, shift, k)
    _check_values(x, h, i, j, shift, k)
    order, reverse = _order_and_reverse(i, j, shift, len(z))
    i, j, shift = i[order], j[order], shift[order]
    vectors = x[j] - x[i] + (shift.double()[:, None] @ h[k[i]])[:, 0]
    if bool((vectors.square().sum(1) < SAME_SITE**2).any()):
        a, b, s, back, d = (t.cpu().numpy() for t in (i, j, shift, reverse, vectors))
        check_sites(Edges(a, b, s, back, d))  # raises, naming the atoms
    padded, neighbors, mask, backward = pad_edges(i, j, reverse, vectors.to(dtype), len(z))
    periodic = tensor(pbc, torch.bool).expand(len(h), 3).all(1)
    volume = torch.linalg.det(h).abs()
    return Graph(
        numbers=z,
        vectors=padded,
        neighbors=neighbors,
        mask=mask,
        reverse=backward,
        system=k,
        n_systems=len(h),
        volume=torch.where(periodic & (volume > 0.0), volume, torch.nan).to(dtype),
        n_per_system=torch.bincount(k, minlength=len(h)),
        positions=x.to(dtype),
        cell=h.to(dtype),
        charge=tensor(charge, dtype).expand(len(h)),
    )


def _check_shapes(z: Tensor, x: Tensor, h: Tensor, i: Tensor, j: Tensor, shift: Tensor, k: Tensor) -> None:
    n_atoms, n_edges, n_systems = z.numel(), i.numel(), len(h)
    expected = {
        "numbers": (z, (n_atoms,)),
        "positions": (x, (n_atoms, 3)),
        "cell": (h, (n_systems, 3, 3)),
        "center": (i, (n_edges,)),
        "other": (j, (n_edges,)),
        "offset": (shift, (n_edges, 3)),
        "system": (k, (n_atoms,)),
    }
    for name, (given, shape) in expected.items():
        if given.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(given.shape)}; with {n_atoms} numbers, {n_edges} centers and {n_systems} "
                f"cells it has to be {shape}."
            )
    if n_atoms == 0:
        raise ValueError("no atoms were given; a graph needs at least one.")


def _check_values(x: Tensor, h: Tensor, i: Tensor, j: Tensor, shift: Tensor, k: Tensor) -> None:
    n_atoms, n_systems = len(x), len(h)
    for name, values, limit in (("center", i, n_atoms), ("other", j, n_atoms), ("system", k, n_systems)):
        if len(values) and not (int(values.min()) >= 0 and int(values.max()) < limit):
            least, most = int(values.min()), int(values.max())
            raise ValueError(f"{name} is between {least} and {most}; it has to be between 0 and {limit - 1}.")
    if bool((k.diff() < 0).any()) or bool((torch.bincount(k, minlength=n_systems) == 0).any()):
        raise ValueError(
            f"system is not sorted, or one of {n_systems} structures has no atom; give the atoms of one structure "
            "after those of the other, and a cell for each."
        )
    for name, values in (("positions", x), ("cell", h)):
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name}: there are values that are not finite; check the step that changed them.")
    if len(shift) and int(shift.abs().max()) >= MAX_OFFSET:
        raise ValueError(f"an offset is {int(shift.abs().max())}; less than {MAX_OFFSET} is possible: wrap the atoms.")
    if bool((apart := k[i] != k[j]).any()):
        e = int(apart.nonzero()[0])
        raise ValueError(
            f"edge {e} joins atom {int(i[e])} of structure {int(k[i[e]])} and atom {int(j[e])} of structure "
            f"{int(k[j[e]])}; neighbours belong to one structure."
        )


def _order_and_reverse(i: Tensor, j: Tensor, shift: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """Order by center, neighbour and offset, and the reverse of each sorted edge."""
    base = 2 * MAX_OFFSET
    place = torch.tensor([base * base, base, 1], device=shift.device)
    code = (shift * place).sum(1)
    kinds, index = torch.cat((code, -code)).unique(return_inverse=True)
    forward, backward = index.view(2, -1)
    key, wanted = (i * n_atoms + j) * len(kinds) + forward, (j * n_atoms + i) * len(kinds) + backward
    key, order = key.sort()
    if bool((again := key.diff() == 0).any()):
        e = int(order[again.nonzero()[0]])
        raise ValueError(f"{_named(i, j, shift, e)} is there more than once; leave out {int(again.sum())} edges.")
    found = torch.searchsorted(key, wanted[order]).clamp(max=max(len(key) - 1, 0))
    if bool((missing := key[found] != wanted[order]).any()):
        e, n_missing = int(order[missing.nonzero()[0]]), int(missing.sum())
        half = "this is a half list: ask for a full one" if n_missing == len(i) else "add them, or ask for a full list"
        raise ValueError(
            f"{n_missing} of {len(i)} edges have no reverse, the first is {_named(i, j, shift, e)}, whose reverse is "
            f"({int(j[e])}, {int(i[e])}, {(-shift[e]).tolist()}); {half}."
        )
    return order, found


def _named(i: Tensor, j: Tensor, shift: Tensor, e: int) -> str:
    return f"edge {e} (center {int(i[e])}, other {int(j[e])}, offset {shift[e].tolist()})"
