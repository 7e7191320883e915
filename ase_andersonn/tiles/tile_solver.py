"""Solve of the tiles of one cluster: each tile is a system with its own fixed point and Anderson window.

    E_t = Σ_{i in focus} e_i(z_i) + ⟨λ, f(z) − z⟩,    λ = (∂f/∂z)ᵀ λ + ∂/∂z Σ_{i in focus} e_i

The neighbourhood of an atom is encoded once, with its complete environment, also if the atom is in several tiles. Its
features are solved for in each tile separately, without messages from atoms that the tile does not solve for. Every
`E_t` is stationary in its features, so the derivative of the sum is one backward pass through one application of the
cells, exact at fixed membership of the tiles.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from ase_andersonn.engine.compiled import CompiledModel
from ase_andersonn.engine.encoding import Encoding
from ase_andersonn.engine.equilibrium import Equilibrium, SolveOptions, solve_equilibrium_encoded
from ase_andersonn.nn.equilibrium_cell import Injection
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.convert import check_sites
from ase_andersonn.structures.graph import Graph, pad_edges
from ase_andersonn.structures.neighbors import Cutoff, Edges, edges_of, extremes_of
from ase_andersonn.structures.neighbors_cuda import device_edges, finds_edges_on

from .cluster import Cluster
from .grid import Floats, Ints


@dataclass(frozen=True)
class SolveSummary:
    """Convergence of the tiles' fixed points; the worst values of all tiles.

    Attributes:
        residual: of the features.
        adjoint_residual: of the adjoint.
        energy_error: estimated, eV/atom.
        failed: number of tiles that did not converge.
        evaluations: applications of the cell and of its transpose.
        backend: how the model's functions ran.
    """

    residual: float
    adjoint_residual: float
    energy_error: float
    failed: int
    evaluations: tuple[int, int]
    backend: str

    @staticmethod
    def of(equilibrium: Equilibrium) -> "SolveSummary":
        return SolveSummary(
            residual=float(equilibrium.forward.residual.max()),
            adjoint_residual=float(equilibrium.backward.residual.max()),
            energy_error=float(equilibrium.error.max()),
            failed=int((~equilibrium.converged).sum()),
            evaluations=equilibrium.evaluations,
            backend=equilibrium.backend,
        )


@dataclass(frozen=True)
class Solved:
    """Contributions of the tiles of a cluster, in float64.

    Attributes:
        tile_energies: [n_tiles], eV.
        atom: int64 [n_focus], index of each focus atom, by tile.
        tile: int64 [n_focus], sorted; its tile.
        energies: energies of the focus atoms [n_focus], eV; their sum over a tile is its energy.
        forces: forces on all members of the cluster [n_members, 3], eV/Å, or None.
        virials: `sym Σ_k d_ik ⊗ ∂E/∂d_ik` of the rows [n_rows, 3, 3], eV, or None.
        found: convergence of the solve.
        n_neighbors: neighbours of an atom, with padding.
    """

    tile_energies: Floats
    atom: Ints
    tile: Ints
    energies: Floats
    forces: Floats | None
    virials: Floats | None
    found: SolveSummary
    n_neighbors: int


class _Pairs(NamedTuple):
    """Pairs of a tile and a row of the cluster that is solved for in the tile.

    Attributes:
        row: int64 [n_pairs], row of the cluster.
        tile: int64 [n_pairs], sorted.
        focus: 1 or 0 [n_pairs].
        graph: topology of the tiles; edges to atoms that are not solved for in the tile are replaced by self-edges.
        present: [n_pairs, n_neighbors], whether the edge carries messages.
        one_to_one: whether pair k is row k.
    """

    row: Tensor
    tile: Tensor
    focus: Tensor
    graph: Graph
    present: Tensor
    one_to_one: bool


def solve_tiles(
    model: EnergyModel,
    compiled: CompiledModel,
    cluster: Cluster,
    numbers: NDArray[Any],
    options: SolveOptions,
    *,
    forces: bool,
    keep: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Solved:
    """Energies of the tiles, and the derivatives of their sum.

    Args:
        model: an equilibrium model.
        compiled: its compiled functions.
        cluster: the tiles.
        numbers: atomic numbers of the cluster's members [n_members].
        options: settings of the solve.
        forces: whether forces and virials are wanted.
        keep: whether to keep intermediate results of the encoding for the derivatives rather than encode again.
        dtype: precision of the edge vectors.
        device: device of the computation.

    Raises:
        ValueError: for unknown elements, and for two atoms on one site.
    """
    with torch.no_grad():
        graph = _rows(cluster, numbers, model.edge_cutoff, dtype, device)
        species = model.species(graph.numbers)
        pairs = _pairs(cluster, graph)
        encoding = compiled.encoder.encode(graph, species, keep=forces and keep, n_receivers=cluster.n_solved)
        found = solve_equilibrium_encoded(
            pairs.graph, species[pairs.row], compiled, _of_pairs(encoding, pairs), options, pairs.focus
        )
        energies, tile_energies = _energies(model, species, found, pairs, cluster)
        gradient = _edge_gradient(compiled, graph, species, encoding, found, pairs) if forces else None
        focus = cluster.focus
        return Solved(
            tile_energies=_array(tile_energies),
            atom=cluster.atom[cluster.row[focus]],
            tile=cluster.tile[focus],
            energies=_array(energies),
            forces=None if gradient is None else _array(_forces(gradient, graph, len(cluster.atom))),
            virials=None if gradient is None else _array(_virials(gradient, graph)),
            found=SolveSummary.of(found),
            n_neighbors=graph.n_neighbors,
        )


def _rows(cluster: Cluster, numbers: NDArray[Any], cutoff: Cutoff, dtype: torch.dtype, device: torch.device) -> Graph:
    """Edges of the rows; other members of the cluster occur as neighbours only.

    The reverse of an edge to a member that is not a row is the edge itself.
    """
    n_rows = cluster.n_rows
    if finds_edges_on(device):
        largest = extremes_of(cutoff, numbers)[1]
        edges = device_edges([Atoms(numbers=numbers, positions=cluster.positions)], largest, device)
        if edges.on_one_site:
            _edges(cluster, numbers, cutoff)  # raises, naming the atoms
        center, other, reverse, vectors = edges.center, edges.other, edges.reverse, edges.vectors
    else:
        found = _edges(cluster, numbers, cutoff)
        arrays = (found.center, found.other, found.reverse, found.vectors)
        center, other, reverse, vectors = (torch.from_numpy(a).to(device) for a in arrays)
    n_edges = int(torch.searchsorted(center, n_rows))
    center, other, reverse, vectors = (x[:n_edges] for x in (center, other, reverse, vectors))
    own = torch.arange(n_edges, device=device)
    padded, neighbors, mask, backward = pad_edges(
        center, other, torch.where(other < n_rows, reverse, own), vectors.to(dtype), n_rows
    )
    return Graph(
        numbers=torch.from_numpy(numbers.astype(np.int64)).to(device),
        vectors=padded,
        neighbors=neighbors,
        mask=mask,
        reverse=backward,
        system=torch.zeros(n_rows, dtype=torch.int64, device=device),
        n_systems=1,
        volume=padded.new_full((1,), torch.nan),
        n_per_system=torch.tensor([n_rows], device=device),
    )


def _edges(cluster: Cluster, numbers: NDArray[Any], cutoff: Cutoff) -> Edges:
    found = edges_of(numbers, cluster.positions, np.zeros((3, 3)), False, cutoff)
    check_sites(found, cluster.atom)
    return found


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.cpu().numpy()
    return array


def _pairs(cluster: Cluster, graph: Graph) -> _Pairs:
    """Pairs of tiles and rows, and the edges between pairs of one tile."""
    device, n_neighbors = graph.vectors.device, graph.n_neighbors
    row, tile, focus = (torch.from_numpy(x).to(device) for x in (cluster.row, cluster.tile, cluster.focus))
    chosen = row if cluster.shared else slice(cluster.n_solved)
    neighbors, mask = graph.neighbors[chosen], graph.mask[chosen]
    partner, present = _partners(cluster, row, tile, neighbors, mask)
    own = torch.arange(cluster.n_pairs, device=device)[:, None]
    reverse = graph.reverse[chosen] % n_neighbors
    slot = own * n_neighbors + torch.arange(n_neighbors, device=device)
    n_focus = torch.zeros(cluster.n_tiles, dtype=torch.int64, device=device).index_add(0, tile, focus.long())
    topology = Graph(
        numbers=row,
        vectors=graph.vectors.new_empty(cluster.n_pairs, n_neighbors, 0),
        neighbors=torch.where(present, partner, own),
        mask=present,
        reverse=torch.where(present, partner * n_neighbors + reverse, slot),
        system=tile,
        n_systems=cluster.n_tiles,
        volume=graph.volume.expand(cluster.n_tiles),
        n_per_system=n_focus,
    )
    return _Pairs(row, tile, focus.to(graph.vectors.dtype), topology, present, not cluster.shared)


def _partners(cluster: Cluster, row: Tensor, tile: Tensor, neighbors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pair at the other end of each edge, and whether there is one in the same tile [n_pairs, n_neighbors]."""
    present = mask & (neighbors < cluster.n_solved)
    if cluster.n_tiles == 1:
        return neighbors, present
    if not cluster.shared:
        inside = neighbors.clamp(max=cluster.n_solved - 1)
        return neighbors, present & (tile[inside] == tile[:, None])
    keys = tile * cluster.n_solved + row
    wanted = tile[:, None] * cluster.n_solved + neighbors.clamp(max=cluster.n_solved - 1)
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return place, present & (keys[place] == wanted)


def _of_pairs(encoding: Encoding, pairs: _Pairs) -> Encoding:
    """Encoding of the pairs: no gates to atoms outside, pair energies for the focus only."""
    (u, v, gates), pair = encoding.injection, encoding.pair
    chosen = slice(len(pairs.row)) if pairs.one_to_one else pairs.row
    u, v, gates, pair = u[chosen], v[chosen], gates[chosen], pair[chosen]
    return Encoding(Injection(u, v, gates * pairs.present[..., None]), pair * pairs.focus)


def _energies(
    model: EnergyModel, species: Tensor, found: Equilibrium, pairs: _Pairs, cluster: Cluster
) -> tuple[Tensor, Tensor]:
    """Energies of the focus atoms; the corrections `λ · (f − z)` of other atoms of a tile are shared evenly.

    Returns:
        energies of focus atoms [n_focus] and of tiles [n_tiles], eV, float64.
    """
    rows = found.lagrangian.double()
    inside = pairs.focus.bool()
    tile = pairs.tile[inside]
    others = rows.new_zeros(cluster.n_tiles).index_add(0, pairs.tile, torch.where(inside, 0.0, rows))
    energies = rows[inside] + model.reference_energies(species[pairs.row[inside]])
    energies = energies + (others / pairs.graph.n_per_system.clamp(min=1))[tile]
    return energies, rows.new_zeros(cluster.n_tiles).index_add(0, tile, energies)


def _edge_gradient(
    compiled: CompiledModel, graph: Graph, species: Tensor, encoding: Encoding, found: Equilibrium, pairs: _Pairs
) -> Tensor:
    """`∂(Σ_t E_t)/∂d` of the rows' edges [n_rows, n_neighbors, 3], eV/Å.

    As `CompiledModel.edge_gradient`, with the cotangents of a row's encoding summed over its tiles.
    """
    inner, messages = found.cell.injection_vjp(found.adjoint, found.slope)
    sent, of_pairs = found.cell.send(found.z), found.encoding.injection.gates
    n_pairs = len(pairs.row)
    order = pairs.row if pairs.one_to_one else torch.argsort(pairs.row, stable=True)
    by_row = pairs.row[order]

    def chosen(b: slice) -> slice | Tensor:
        """Pairs of a block of rows."""
        if pairs.one_to_one:
            return slice(min(b.start, n_pairs), min(b.stop, n_pairs))
        first, last = torch.searchsorted(by_row, torch.tensor([b.start, b.stop], device=order.device)).tolist()
        return order[first:last]

    def summed(parts: tuple[Tensor, Tensor], own: slice | Tensor, b: slice) -> tuple[Tensor, Tensor]:
        """Values of the pairs of a block, summed over the pairs of each row."""
        row = pairs.row[own] - b.start
        first, second = (x.new_zeros(b.stop - b.start, *x.shape[1:]).index_add(0, row, x) for x in parts)
        return first, second

    def of_cell(b: slice) -> tuple[Tensor, Tensor]:
        own = chosen(b)
        parts = found.adjoint[own], inner[own]
        return parts if pairs.one_to_one else summed(parts, own, b)

    def of_rest(b: slice) -> tuple[Tensor, Tensor]:
        own = chosen(b)
        near, n_rows = pairs.graph.neighbors[own], b.stop - b.start
        if not len(near):
            return of_pairs.new_zeros(n_rows, *of_pairs.shape[1:]), pairs.focus.new_zeros(n_rows)
        gates = compiled.gates_vjp(found.cell, messages[own], sent, of_pairs[own], near)
        parts = gates * pairs.present[own][..., None], pairs.focus[own]
        return parts if pairs.one_to_one and len(near) == n_rows else summed(parts, own, b)

    return compiled.encoder.pull(graph, species, encoding, of_cell, of_rest)


def _forces(gradient: Tensor, graph: Graph, n_members: int) -> Tensor:
    """`F_i = Σ_k (∂E/∂d_ik − ∂E/∂d_ki)` [n_members, 3], eV/Å, float64, also on members that are not rows."""
    gradient = gradient.double()
    forces = gradient.new_zeros(n_members, 3)
    forces[: len(gradient)] = gradient.sum(1)
    return forces.index_add_(0, graph.neighbors.flatten(), gradient.flatten(0, 1), alpha=-1)


def _virials(gradient: Tensor, graph: Graph) -> Tensor:
    virial = (graph.vectors.transpose(1, 2) @ gradient).double()
    return 0.5 * (virial + virial.transpose(1, 2))
