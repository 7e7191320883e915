"""What of a structure lies outside the training data of a model, as far as can be said without its network."""

from collections.abc import Iterator, Mapping
from typing import Any

from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor

from ase_andersonn.inputs.graph import Graph

from .base import EnergyModel
from .potential import warn_caller

EXTRAPOLATION = "its results for them are an extrapolation without known errors."
EVERY = 10


def unseen(card: Mapping[str, Any], atoms: Atoms) -> Iterator[str]:
    """A sentence for everything that the training data of a model had nothing of; of charges and spins see `metadata`.

    The card may say which elements stood together (`combinations`, lists of atomic numbers), how many atoms the
    smallest structure had (`smallest`), whether structures were periodic (`periodic`, `[false]`, `[true]` or both;
    periodic is what is so in one direction at least), and whether some molecules had odd numbers of electrons
    (`odd_electrons`). What it knows of distances is said by `Contacts`.

    Args:
        card: the model card.
        atoms: a structure of elements that the model knows.
    """
    here = set(atoms.numbers.tolist())
    combinations = card.get("combinations")
    if combinations and not any(here <= set(known) for known in combinations):
        symbols = sorted(atoms.symbols.species())
        what = f"structures of {symbols[0]}"
        if len(symbols) > 1:
            what = f"structures that hold the elements {symbols} together"
        yield f"the model was not trained on {what}: {EXTRAPOLATION}"
    smallest = card.get("smallest")
    if smallest and len(atoms) < smallest and not atoms.pbc.any():
        yield (
            f"the model was not trained on molecules of fewer than {smallest} atoms, this one has {len(atoms)}: "
            f"{EXTRAPOLATION}"
        )
    periodic = card.get("periodic")
    if periodic and bool(atoms.pbc.any()) not in periodic:
        kind = "periodic structures" if atoms.pbc.any() else "molecules and clusters"
        yield f"the model was not trained on {kind}: {EXTRAPOLATION}"
    if card.get("odd_electrons") is False and not atoms.pbc.any() and atoms.numbers.sum() % 2:
        yield f"the model was not trained on molecules with an odd number of electrons, radicals: {EXTRAPOLATION}"


class Contacts:
    """Says once what the training data of a model had no distances of, as far as the model's card tells.

    Structures that are summed over tiles are not looked at.

    - Atoms nearer than the model's `closest` distance of their elements, where it knows but repulsion.
    - Atoms without a neighbour within the cutoff, of an element of which no such atom was learnt; `lone` of the card
      are the atomic numbers of which some were.

    Along a trajectory every `EVERY`-th call looks, and each that made a new neighbour list.

    Args:
        model: the model.
    """

    def __init__(self, model: EnergyModel) -> None:
        self.model = model
        self.left = {"near"} if model.card else set()
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
        if "near" in self.left and (text := self._near(graph, species)):
            self.left.remove("near")
            warn_caller(text)
        if "lone" in self.left and (text := self._lone(graph)):
            self.left.remove("lone")
            warn_caller(text)

    def _near(self, graph: Graph, species: Tensor) -> str:
        shares = (
            graph.vectors.square().sum(-1) / self.model.closest[species[:, None], species[graph.neighbors]].square()
        )
        shares = shares.masked_fill(~graph.mask, 1.0)
        slot = int(shares.argmin())
        share = float(shares.flatten()[slot])
        if share >= 1.0:
            return ""
        i = slot // graph.n_neighbors
        j = int(graph.neighbors.flatten()[slot])
        length = float(graph.vectors.flatten(0, 1)[slot].norm())
        who = "and its own image" if i == j else f"and {_named(graph, j)}"
        return (
            f"atoms {_named(graph, i)} {who} are {length:.3g} Å apart; nearer than {length / share**0.5:.3g} Å the "
            "model was not trained on such pairs, and its results are mere repulsion."
        )

    def _lone(self, graph: Graph) -> str:
        lone = ~graph.mask.any(1)
        if not bool(lone.any()):
            return ""
        learnt = self.model.card["lone"]
        found = [i for i in lone.nonzero().flatten().tolist() if int(graph.numbers[i]) not in learnt]
        if not found:
            return ""
        return (
            f"atom {_named(graph, found[0])} has no neighbour within {self.model.cutoff:g} Å, and the model was not "
            f"trained on such atoms of its element: {EXTRAPOLATION}"
        )


def _named(graph: Graph, atom: int) -> str:
    """Its index in its structure, and its element."""
    first = int((graph.system < graph.system[atom]).sum())
    return f"{atom - first} ({chemical_symbols[int(graph.numbers[atom])]})"
