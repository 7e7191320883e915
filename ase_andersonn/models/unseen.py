"""What of a structure lies outside the training data of a model, as far as can be said without its network."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor

from ase_andersonn.inputs.graph import Graph
from ase_andersonn.inputs.neighbors import neighbor_edges
from ase_andersonn.nn.radial import distances

from .base import NEARER, EnergyModel
from .equilibrium import Equilibrium, per_system
from .potential import warn_caller

EXTRAPOLATION = "its results for them are an extrapolation without known errors."
EVERY = 10
MOST = 0.7
"""Share of a structure's atoms: in a thin slab half of them stand at a surface, which no thick one of training has."""
NEIGHBORS = 5.0
"""Å: how far apart atoms are neighbours, of pairs of elements that were never learnt."""


def unseen(card: Mapping[str, Any], atoms: Atoms, told: set[frozenset[int]] | None = None) -> Iterator[str]:
    """A sentence for everything that the training data of a model had nothing of; of charges and spins see `metadata`.

    The card may say which elements stood together (`combinations`, lists of atomic numbers), which pairs of elements
    were neighbours (`pairs`; those that stood together, where it does not), how many atoms the smallest structure had
    (`smallest`), whether structures were periodic (`periodic`, `[false]`, `[true]` or both; periodic is what is so in
    one direction at least), and whether some molecules had odd numbers of electrons (`odd_electrons`). What it knows
    of distances is said by `Contacts`.

    Args:
        card: the model card.
        atoms: a structure of elements that the model knows.
        told: pairs of elements that nothing more is said of; those that a sentence names are added.
    """
    yield from _unmet(card, atoms, set() if told is None else told)
    smallest, periodic = card.get("smallest"), card.get("periodic")
    if smallest and len(atoms) < smallest and not atoms.pbc.any() and False in (periodic or [False]):
        yield (
            f"the model was not trained on molecules of fewer than {smallest} atoms, this one has {len(atoms)}: "
            f"{EXTRAPOLATION}"
        )
    if periodic and bool(atoms.pbc.any()) not in periodic:
        kind = "periodic structures" if atoms.pbc.any() else "molecules and clusters"
        yield f"the model was not trained on {kind}: {EXTRAPOLATION}"
    if card.get("odd_electrons") is False and not atoms.pbc.any() and atoms.numbers.sum() % 2:
        yield f"the model was not trained on molecules with an odd number of electrons, radicals: {EXTRAPOLATION}"


def _unmet(card: Mapping[str, Any], atoms: Atoms, told: set[frozenset[int]]) -> Iterator[str]:
    """A sentence for an element, or a pair of elements with atoms that are neighbours, that training had nothing of."""
    combinations = card.get("combinations", ())
    met = card.get("pairs") or [pair for known in combinations for pair in combinations_with_replacement(known, 2)]
    if not met:
        return
    met = {frozenset(pair) for pair in met}
    here = sorted(set(atoms.numbers.tolist()))
    doubted = {frozenset(pair) for pair in combinations_with_replacement(here, 2)} - met - told
    if not doubted or not np.isfinite(atoms.positions).all():
        return
    edges = neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, NEIGHBORS)
    ends = np.stack([atoms.numbers[edges.center], atoms.numbers[edges.other]], 1)
    near = {frozenset(pair) for pair in np.unique(ends, axis=0).tolist()}
    if len(here) == 1:
        near.add(frozenset(here))
    if found := sorted(sorted(pair) for pair in doubted & near):
        told |= doubted & near
        names = ", ".join("–".join(chemical_symbols[n] for n in (pair[0], pair[-1])) for pair in found)
        symbols = sorted({chemical_symbols[n] for pair in found for n in pair})
        what = f"structures of {symbols[0]}"
        if len(symbols) > 1:
            what = f"structures that hold the elements {symbols} together, on neighbours {names}"
        yield f"the model was not trained on {what}: {EXTRAPOLATION}"


class Contacts:
    """Says once what the training data of a model had no distances of, as far as the model's card tells.

    Structures that are summed over tiles are not looked at.

    - Atoms nearer than the model's `closest` distance of their elements, where it adds the repulsion of the nuclei.
    - Surroundings unlike any in training, of the structure as a whole or of an atom, by `extrapolation`.
    - Atoms without a neighbour within the cutoff, of an element of which no such atom was learnt; `lone` of the card
      are the atomic numbers of which some were.

    Along a trajectory every `EVERY`-th call looks, and each that made a new neighbour list.

    Args:
        model: the model.

    Attributes:
        names: of the structures of the present batch, where there are several.
    """

    def __init__(self, model: EnergyModel) -> None:
        self.model = model
        self.names: Sequence[str] = ()
        self.left = {"near", "unlike"} if model.card else set()
        self.left |= {"lone"} & set(model.card)
        self.rebuilds = self.calls = 0

    def follow(self, graph: Graph, rebuilds: int) -> None:
        """As `check`, of the next step of a trajectory whose neighbour list was made so many times."""
        self.calls += 1
        if rebuilds != self.rebuilds or self.calls % EVERY == 0:
            self.rebuilds = rebuilds
            self.check(graph)

    def check(self, graph: Graph) -> None:
        """Warn of the atoms of a batch of structures.

        Raises:
            ValueError: if an element is not one of the model's.
        """
        if not self.left:
            return
        species = self.model.species(graph.numbers)
        if "near" in self.left and (found := self._near(graph, species)):
            self._tell("near", graph, *found)
        if "lone" in self.left and (found := self._lone(graph)):
            self._tell("lone", graph, *found)

    def _tell(self, what: str, graph: Graph, atom: int, text: str) -> None:
        """Warn of an atom's structure, this once."""
        self.left.remove(what)
        warn_caller(of_structure(self.names[int(graph.system[atom])], text) if self.names else text)

    def extrapolation(self, graph: Graph, found: Equilibrium) -> Tensor | None:
        """How far each atom is from what was learnt [n_atoms]; None where the model does not know.

        That of `EnergyModel.extrapolation` of its surroundings, and of its nearest neighbour `(d/r − 1) / (1/0.9 − 1)`,
        where r is below the shortest distance d that was learnt of the pair.
        """
        species = self.model.species(graph.numbers)
        u, v, _ = found.encoding.injection
        scores = self.model.extrapolation(u, v, species)
        if scores is None:
            return None
        shortest = self.model.closest[species[:, None], species[graph.neighbors]] / NEARER
        nearer = (shortest / distances(graph.vectors, graph.mask) - 1.0) / (1.0 / NEARER - 1.0)
        return scores + nearer.masked_fill(~graph.mask, 0.0).clamp(min=0.0).amax(1)

    def check_unlike(self, graph: Graph, scores: Tensor | None) -> None:
        """Warn of a structure most atoms of which are farther out than those of any in training are in the mean, or of
        an atom that is much farther out than any in training.
        """
        if scores is None or "unlike" not in self.left:
            return
        if "lone" in self.model.card:  # of atoms without neighbours it is said that they have none
            scores = scores.masked_fill(~graph.mask.any(1), 0.0)
        species = self.model.species(graph.numbers)
        out = per_system((scores > 1.0).to(scores.dtype), graph) / graph.n_per_system
        shares = scores / self.model.farthest[species]
        atom, system = int(shares.argmax()), int(out.argmax())
        if float(out[system]) > MOST:
            own = graph.system == system
            whose, score = "its atoms", f"{float(scores[own].mean()):.3g} in the mean"
        elif float(shares[atom]) > 1.0:
            own = torch.arange(graph.n_atoms, device=species.device) == atom
            whose, score = f"atom {_named(graph, atom)}", f"{float(scores[atom]):.3g}"
        else:
            return
        met = own & graph.mask.any(1)
        r = distances(graph.vectors, graph.mask)
        density = (
            self.model.local_density(r, species, species[graph.neighbors], graph.mask) / self.model.densest[species]
        )
        how = "denser than any" if float(density[own].mean()) > 1.0 else "unlike any, by distances or by angles,"
        near = f"no neighbour within {self.model.cutoff:g} Å"
        if bool(met.any()):
            nearest = r.masked_fill(~graph.mask, torch.inf)[met].amin(1).mean()
            near = f"the nearest neighbour at {float(nearest):.3g} Å"
        self._tell(
            "unlike",
            graph,
            int(own.nonzero()[0]),
            f"the structure is outside of the training data: the surroundings of {whose} are {how} in training, with "
            f"{near} (diagnostics['extrapolation'] is {score}; 1 is the training "
            f"structure farthest out); {EXTRAPOLATION.replace('them', 'it')}",
        )

    def _near(self, graph: Graph, species: Tensor) -> tuple[int, str] | None:
        shares = (
            graph.vectors.square().sum(-1) / self.model.closest[species[:, None], species[graph.neighbors]].square()
        )
        shares = shares.masked_fill(~graph.mask, 1.0)
        slot = int(shares.argmin())
        share = float(shares.flatten()[slot])
        if share >= 1.0:
            return None
        i = slot // graph.n_neighbors
        j = int(graph.neighbors.flatten()[slot])
        length = float(graph.vectors.flatten(0, 1)[slot].norm())
        who = "and its own image" if i == j else f"and {_named(graph, j)}"
        return i, (
            f"atoms {_named(graph, i)} {who} are {length:.3g} Å apart; nearer than {length / share**0.5:.3g} Å the "
            "model was not trained on such pairs, and what it says of them is the repulsion of their nuclei."
        )

    def _lone(self, graph: Graph) -> tuple[int, str] | None:
        lone = ~graph.mask.any(1)
        if not bool(lone.any()):
            return None
        learnt = self.model.card["lone"]
        found = [i for i in lone.nonzero().flatten().tolist() if int(graph.numbers[i]) not in learnt]
        if not found:
            return None
        return found[0], (
            f"atom {_named(graph, found[0])} has no neighbour within {self.model.cutoff:g} Å, and the model was not "
            f"trained on such atoms of its element: {EXTRAPOLATION}"
        )


def name_of(atoms: Atoms) -> str:
    """What a structure among others is called: `atoms.info["name"]`, or its formula."""
    return str(atoms.info.get("name") or atoms.symbols)


def of_structure(name: str, text: str) -> str:
    """A warning of one structure among others."""
    return f"{name}: {text} Of other structures of which the same is true, nothing more is said."


def _named(graph: Graph, atom: int) -> str:
    """Its index in its structure, and its element."""
    first = int((graph.system < graph.system[atom]).sum())
    return f"{atom - first} ({chemical_symbols[int(graph.numbers[atom])]})"
