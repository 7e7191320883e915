"""Node–neighbour images of structures, with a row per atom and columns for its nearest neighbours.

The image of Deep AndersoNN (Al Dajani and Keyes, arXiv 2407.19724) lists neighbours in order of distance. Such a list
is discontinuous: the order of equidistant neighbours, which are the rule in a crystal, is arbitrary, and a neighbour
beyond the cutoff or the last column disappears abruptly. Here the columns of atom `i` are the axis of the coordination
number instead, and a neighbour `j` at distance `r_j` covers the interval that it adds,

    lo_j = Σ_l m_l s((r_j − r_l) / w),    width_j = Σ_l m_l [1 − s((r_j − r_l) / w) − s((r_l − r_j) / w)]
    A_cj = (m_j / width_j) |[c, c + 1] ∩ [lo_j, lo_j + width_j]|
    image[i, c] = (Σ_j A_cj, x_i, Σ_j A_cj x_ij)

with the atom's own properties `x_i`, those of neighbour and bond `x_ij`, a smooth step `s` from 0 to 1, and a weight
`m` that is 1 up to `FULL_WEIGHT` of the cutoff and decreases smoothly to 0 at it. Neighbours whose distances differ by
the resolution `w` or more have a column each, in order of distance, as in the paper; those of one shell share its
columns evenly. `A`, and therefore the image, is Lipschitz continuous in positions and cell, also at equal distances, at
the cutoff, and at the last column. Its derivative is discontinuous where the end of a neighbour's interval passes an
integer.

The image is invariant to the choice of cell, the order of atoms and rotations: primitive cell, conventional cell and
supercell have the same set of rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from torch import Tensor

from ase_andersonn.structures.elements import ELECTRONEGATIVITY, N_ELEMENTS, PROPERTIES, element_properties
from ase_andersonn.structures.graph import Graph, graph_from_atoms

FULL_WEIGHT = 0.75
"""Share of the cutoff within which neighbours have full weight."""
BLOCK_ATOMS = 512
"""Number of atoms processed at a time, to bound the memory of pairs of neighbours."""
L_MAX = 4
"""Highest Legendre polynomial of the angle between two neighbours."""
TINY = 1e-12
_ROWS = ("values", "filled", "numbers")


@dataclass(frozen=True, eq=False)
class NodeNeighborImages:
    """Node–neighbour images of a batch of structures.

    Args:
        values: [n_atoms, n_neighbors, n_channels], channels as `channel_names` has them.
        filled: [n_atoms, n_neighbors], `Σ_j A_cj`: 1 in a full column, 0 beyond the last neighbour; deviates by a few
            percent for partly merged shells, closer than the resolution.
        numbers: int64 [n_atoms], atomic numbers.
        system: int64 [n_atoms], sorted; structure the atom belongs to.
        n_systems: number of structures.
    """

    values: Tensor
    filled: Tensor
    numbers: Tensor
    system: Tensor
    n_systems: int

    @property
    def n_atoms(self) -> int:
        return self.values.shape[0]

    @property
    def mask(self) -> Tensor:
        """bool [n_atoms, n_neighbors], whether the column is not empty."""
        return self.filled > 0

    @property
    def n_per_system(self) -> Tensor:
        """int64 [n_systems], atoms of each structure."""
        return torch.bincount(self.system, minlength=self.n_systems)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "NodeNeighborImages":
        """Copy on a device and in a precision."""
        moved: dict[str, Any] = {k: value.to(device) for k, value in vars(self).items() if isinstance(value, Tensor)}
        if dtype is not None:
            moved |= {"values": moved["values"].to(dtype), "filled": moved["filled"].to(dtype)}
        return replace(self, **moved)


class _Settings(NamedTuple):
    cutoff: float
    n_neighbors: int
    n_radial: int
    resolution: float


def channel_names(n_radial: int = 12) -> list[str]:
    """Names of the channels of an image, in order."""
    return [
        "filled",
        *(f"own {name}" for name in PROPERTIES),
        *(f"neighbor {name}" for name in PROPERTIES),
        "reduced distance",
        "electronegativity difference",
        *(f"radial {k}" for k in range(n_radial)),
        *(f"angle {part} {degree}" for part in ("near", "all") for degree in range(1, L_MAX + 1)),
    ]


def node_neighbor_image(
    atoms: Atoms | Sequence[Atoms],
    *,
    cutoff: float = 6.0,
    n_neighbors: int = 16,
    n_radial: int = 12,
    resolution: float = 0.2,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> NodeNeighborImages:
    """Images of one structure, or of several as one batch; computed in float64.

    Args:
        atoms: structures.
        cutoff: Å.
        n_neighbors: columns.
        n_radial: number of Gaussians of the distance, evenly spaced from 0 to the cutoff.
        resolution: distances that differ by less are partly one shell, Å.
        dtype: precision of the result.
        device: device of the computation and the result.

    Raises:
        ValueError: for invalid sizes, elements beyond the table, no structures, and invalid structures (see
            `check_atoms`).
    """
    settings = _Settings(cutoff, n_neighbors, n_radial, resolution)
    _check_settings(settings)
    graph = graph_from_atoms(atoms, cutoff, dtype=torch.float64, device=device)
    _check_elements(graph.numbers)
    parts = [_rows(graph, rows, settings) for rows in torch.arange(graph.n_atoms, device=device).split(BLOCK_ATOMS)]
    values, filled = (torch.cat(blocks).to(dtype) for blocks in zip(*parts, strict=True))
    return NodeNeighborImages(values, filled, graph.numbers, graph.system, graph.n_systems)


def join(images: Sequence[NodeNeighborImages]) -> NodeNeighborImages:
    """Concatenate batches of equal shape, precision and device."""
    starts, total = [], 0
    for image in images:
        starts.append(total)
        total += image.n_systems
    values, filled, numbers = (torch.cat([getattr(image, name) for image in images]) for name in _ROWS)
    system = torch.cat([image.system + start for image, start in zip(images, starts, strict=True)])
    return NodeNeighborImages(values, filled, numbers, system, total)


def _check_settings(settings: _Settings) -> None:
    if settings.n_neighbors < 1 or settings.n_radial < 2:
        raise ValueError(
            f"n_neighbors is {settings.n_neighbors} and n_radial {settings.n_radial}; an image has at least 1 column "
            "and 2 radial functions."
        )
    if not (settings.resolution > 0.0 and math.isfinite(settings.resolution)):
        raise ValueError(f"resolution is {settings.resolution} Å; it has to be a positive number.")


def _check_elements(numbers: Tensor) -> None:
    strange = numbers[(numbers < 1) | (numbers > N_ELEMENTS)].unique().tolist()
    if strange:
        names = ", ".join(chemical_symbols[z] if 0 <= z < len(chemical_symbols) else f"Z={z}" for z in strange)
        raise ValueError(f"the structure contains {names}; properties are known of elements 1 to {N_ELEMENTS}.")


def _rows(graph: Graph, rows: Tensor, settings: _Settings) -> tuple[Tensor, Tensor]:
    """Values and filling of the rows of some atoms."""
    d, numbers = graph.vectors[rows], graph.numbers[graph.neighbors[rows]]
    r = torch.where(graph.mask[rows], d.square().sum(-1), torch.inf).sqrt()
    r, order = r.sort(1)
    n_near = _n_needed(r, settings)
    r, order = r[:, :n_near], order[:, :n_near]
    columns = _columns(r, settings)
    u = d.gather(1, order[..., None].expand(-1, -1, 3)) / r[..., None]
    found = torch.cat(
        [_pair_features(r, graph.numbers[rows], numbers.gather(1, order), settings), _angles(u, columns)], -1
    )
    filled = columns.sum(-1)
    own = _table(d)[graph.numbers[rows]][:, None].expand(-1, settings.n_neighbors, -1)
    values = [filled[..., None], own, columns @ found]
    return torch.cat(values, -1), filled


def _step(x: Tensor) -> Tensor:
    """Smooth step: 0 below 0, 1 above 1, with two continuous derivatives."""
    x = x.clamp(0.0, 1.0)
    return x * x * x * (10.0 + x * (6.0 * x - 15.0))


def _mass(r: Tensor, cutoff: float) -> Tensor:
    return _step((cutoff - r) / ((1.0 - FULL_WEIGHT) * cutoff))


def _n_needed(r: Tensor, settings: _Settings) -> int:
    """Upper bound of the number of nearest neighbours that contribute to the image.

    Args:
        r: distances in ascending order [n_rows, n_neighbors], inf where there is none.
    """
    below = torch.searchsorted(r, r - settings.resolution, right=True)
    total = torch.nn.functional.pad(_mass(r, settings.cutoff).cumsum(1), (1, 0))
    inside = total.gather(1, below) < settings.n_neighbors  # its interval begins before the end of the last column
    last = torch.where(inside & r.isfinite(), r, 0.0).amax(1, keepdim=True)
    return max(1, int((r < last + settings.resolution).sum(1).max()))


def _columns(r: Tensor, settings: _Settings) -> Tensor:
    """`A`: the share of each column that belongs to each neighbour [n_rows, n_neighbors, number of distances]."""
    mass = _mass(r, settings.cutoff)
    finite = torch.where(r.isfinite(), r, 2.0 * settings.cutoff)
    closer = _step((finite[:, :, None] - finite[:, None, :]) / settings.resolution)
    low = (closer @ mass[..., None])[..., 0]
    width = ((1.0 - closer - closer.transpose(1, 2)) @ mass[..., None])[..., 0]
    c = torch.arange(settings.n_neighbors, dtype=r.dtype, device=r.device)[:, None]
    low, width = low[:, None], width[:, None]
    overlap = (torch.minimum(low + width, c + 1.0) - torch.maximum(low, c)).clamp(min=0.0)
    return overlap * (mass[:, None] / width.clamp(min=TINY))


def _table(like: Tensor) -> Tensor:
    return torch.from_numpy(element_properties()).to(like)


def _pair_features(r: Tensor, own: Tensor, other: Tensor, settings: _Settings) -> Tensor:
    """Properties of neighbour and bond, and Gaussians of the bond length [n_rows, n_distances, n_features].

    Args:
        r: [n_rows, n_distances], Å, inf where there is no neighbour.
        own: atomic numbers [n_rows].
        other: atomic numbers [n_rows, n_distances].
    """
    r = torch.where(r.isfinite(), r, settings.cutoff)
    radius = torch.as_tensor(covalent_radii, dtype=r.dtype, device=r.device)
    pauling = r.new_tensor((0.0, *ELECTRONEGATIVITY))
    contact = r / (radius[own][:, None] + radius[other])
    difference = (pauling[own][:, None] - pauling[other]).abs()
    centers = torch.linspace(0.0, settings.cutoff, settings.n_radial, dtype=r.dtype, device=r.device)
    radial = torch.exp(-0.5 * ((r[..., None] - centers) / centers[1]).square())
    return torch.cat([_table(r)[other], contact[..., None], difference[..., None], radial], -1)


def _angles(u: Tensor, columns: Tensor) -> Tensor:
    """Mean `P_l` of the angles to the neighbours in the first quarter of the columns, and in all columns.

    Args:
        u: unit vectors [n_rows, n_distances, 3].
        columns: `A` [n_rows, n_neighbors, n_distances].

    Returns:
        [n_rows, n_distances, 2 L_MAX].
    """
    near = max(1, columns.shape[1] // 4)
    weights = torch.stack([columns[:, :near].sum(1), columns.sum(1)], -1)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=TINY)
    cosine = (u @ u.transpose(1, 2)).clamp(-1.0, 1.0)
    moments = [polynomial @ weights for polynomial in _legendre(cosine)]
    return torch.stack(moments, -1).flatten(-2)


def _legendre(x: Tensor) -> list[Tensor]:
    """`P_1(x)` to `P_L_MAX(x)`, by Bonnet's recursion."""
    found = [torch.ones_like(x), x]
    for n in range(1, L_MAX):
        found.append(((2 * n + 1) * x * found[-1] - n * found[-2]) / (n + 1))
    return found[1:]
