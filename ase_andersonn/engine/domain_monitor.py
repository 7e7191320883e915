"""Warnings of geometries outside of a model's training data, and how far outside each atom is."""

from collections.abc import Sequence

import torch
from ase.data import chemical_symbols
from torch import Tensor

from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.nn.radial import distances
from ase_andersonn.potentials.base import MIN_DISTANCE_SHARE, EnergyModel
from ase_andersonn.potentials.interface import warn_caller
from ase_andersonn.potentials.training_domain import EXTRAPOLATION, of_structure
from ase_andersonn.structures.graph import Graph

from .equilibrium import Equilibrium, per_system

EVERY = 10
SPARSE = 0.85
"""Of the cutoff of the labels: the next shell of neighbours of a metal is beyond it."""
MOST = 0.7
"""Share of a structure's atoms: in a thin slab half of them stand at a surface, which no thick one of training has."""


class DomainMonitor:
    """Warns once of distances outside the training data, as far as the model's card lists them.

    Structures that are summed over tiles are not looked at.

    - Atoms nearer than the model's `min_distance` distance of their elements, where it adds the repulsion of the
    nuclei.
    - Surroundings unlike any in training, of the structure as a whole or of an atom, by `extrapolation`.
    - Atoms without a neighbour within the cutoff, of an element of which no such atom was learnt; `isolated` of the
      card are the atomic numbers of which some were.
    - Atoms whose nearest neighbour is farther than `SPARSE` times the `label_cutoff` of the card: the cutoff of
      the potential that gave the labels. The cohesion of such atoms is not in the labels.

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
        self.left |= {"isolated", "label_cutoff"} & set(model.card)
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
            self._warn("near", graph, *found)
        if "isolated" in self.left and (found := self._isolated(graph)):
            self._warn("isolated", graph, *found)
        if "label_cutoff" in self.left and (found := self._sparse(graph)):
            self._warn("label_cutoff", graph, *found)

    def _warn(self, kind: str, graph: Graph, atom: int, text: str) -> None:
        """Warn of an atom's structure, once for each kind."""
        self.left.remove(kind)
        warn_caller(of_structure(self.names[int(graph.system[atom])], text) if self.names else text)

    def extrapolation(self, graph: Graph, found: Equilibrium) -> Tensor | None:
        """Out-of-distribution score of each atom [n_atoms]; None where the model has none.

        That of `EnergyModel.extrapolation` of its environment, and of its nearest neighbour `(d/r − 1) / (1/0.9 − 1)`,
        where r is below the shortest distance d that was learnt of the pair.
        """
        species = self.model.species(graph.numbers)
        u, v, _ = found.encoding.injection
        scores = self.model.extrapolation(u, v, species)
        if scores is None:
            return None
        shortest = self.model.min_distance[species[:, None], species[graph.neighbors]] / MIN_DISTANCE_SHARE
        nearer = (shortest / distances(graph.vectors, graph.mask) - 1.0) / (1.0 / MIN_DISTANCE_SHARE - 1.0)
        return scores + nearer.masked_fill(~graph.mask, 0.0).clamp(min=0.0).amax(1)

    def check_extrapolation(self, graph: Graph, scores: Tensor | None) -> None:
        """Warn of a structure most atoms of which are farther out than those of any in training are in the mean, or of
        an atom that is much farther out than any in training.
        """
        if scores is None or "unlike" not in self.left:
            return
        if float(scores.max()) <= min(1.0, float(self.model.environment_max.min())):  # so it is most often
            return
        if "isolated" in self.model.card:  # those have a warning of their own
            scores = scores.masked_fill(~graph.mask.any(1), 0.0)
        species = self.model.species(graph.numbers)
        out = per_system((scores > 1.0).to(scores.dtype), graph) / graph.n_per_system
        shares = scores / self.model.environment_max[species]
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
        near_all = Neighborhoods(graph.vectors, species, species[graph.neighbors], graph.mask)
        density = self.model.local_density(r, near_all) / self.model.max_density[species]
        how = "denser than any" if float(density[own].mean()) > 1.0 else "unlike any, by distances or by angles,"
        near = f"no neighbour within {self.model.cutoff:g} Å"
        if bool(met.any()):
            nearest = r.masked_fill(~graph.mask, torch.inf)[met].amin(1).mean()
            near = f"the nearest neighbour at {float(nearest):.3g} Å"
        self._warn(
            "unlike",
            graph,
            int(own.nonzero()[0]),
            f"the structure is outside of the training data: the surroundings of {whose} are {how} in training, with "
            f"{near} (diagnostics['extrapolation'] is {score}; 1 is the training "
            f"structure farthest out); {EXTRAPOLATION.replace('them', 'it')}",
        )

    def _near(self, graph: Graph, species: Tensor) -> tuple[int, str] | None:
        shares = (
            graph.vectors.square().sum(-1)
            / self.model.min_distance[species[:, None], species[graph.neighbors]].square()
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
            "model was not trained on such pairs, and its results for them are the repulsion of the nuclei."
        )

    def _isolated(self, graph: Graph) -> tuple[int, str] | None:
        lone = ~graph.mask.any(1)
        if not bool(lone.any()):
            return None
        learnt = self.model.card["isolated"]
        found = [i for i in lone.nonzero().flatten().tolist() if int(graph.numbers[i]) not in learnt]
        if not found:
            return None
        return found[0], (
            f"atom {_named(graph, found[0])} has no neighbour within {self.model.cutoff:g} Å, and the model was not "
            f"trained on such atoms of its element: {EXTRAPOLATION}"
        )

    def _sparse(self, graph: Graph) -> tuple[int, str] | None:
        cutoff: float = self.model.card["label_cutoff"]
        r = distances(graph.vectors, graph.mask).masked_fill(~graph.mask, torch.inf).amin(1)
        atom = int(r.masked_fill(r.isinf(), 0.0).argmax()) if len(r) else 0
        if not len(r) or not SPARSE * cutoff < float(r[atom]) < torch.inf:
            return None
        return atom, (
            f"the nearest neighbour of atom {_named(graph, atom)} is {float(r[atom]):.3g} Å away, and the labels of "
            f"the model's training know no neighbours beyond {cutoff:g} Å: its cohesion, and so lattice constants and "
            "elastic properties, are wrong. Use another model for such structures."
        )


def _named(graph: Graph, atom: int) -> str:
    """Its index in its structure, and its element."""
    first = int((graph.system < graph.system[atom]).sum())
    return f"{atom - first} ({chemical_symbols[int(graph.numbers[atom])]})"
