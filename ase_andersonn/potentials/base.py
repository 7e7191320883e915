"""What an equilibrium energy model has to be."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_andersonn.nn.equilibrium_cell import CellWeights, Injection, apply_cell
from ase_andersonn.nn.messages import gathered
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.pretrained.catalog import models_of
from ase_andersonn.structures.neighbors import Cutoff

from .interface import Potential

MIN_DISTANCE_SHARE = 0.9
"""`min_distance` of a pair is this share of the shortest distance of the pair among the training frames: atoms in
motion come a little nearer than in any frame, and only what is nearer than that is told of."""


class Embedding(NamedTuple):
    """Embedding of the atoms' own neighbourhoods.

    Attributes:
        node: features of the atom [n_rows, any].
        message: features sent to its neighbours before the fixed-point solve [n_rows, n_message].
        gates: coefficients of the messages, see `Injection` [n_rows, n_neighbors, n_gates].
    """

    node: Tensor
    message: Tensor
    gates: Tensor


class EnergyModel(Potential, ABC):
    """An energy `Σ_i e_i(z_i)` of features at their fixed point `z = f(z, x)`.

    A model says how the geometry enters (`embed`, then `inject`), which matrices the cell has (`cell_weights`), what
    energy belongs to the features (`readout`) and what energy depends on the geometry alone (`pair_energies`).
    Energies, forces and stress follow from these in `engine/energy_forces.py`, the same for all models.

    Attributes:
        config: the config dataclass it was made from, set by the model.
        cutoff: Å.
        elements: atomic numbers the model knows, ascending.
        n_channels: width of `z`.
        n_gates: numbers that a bond gives to the messages.
        n_message: numbers that an atom tells its neighbours of its own neighbourhood before the equilibrium; 0 for
            none.
        card: the model card, where the model came from a file.
    """

    def __init__(self, elements: Sequence[int], cutoff: float, n_channels: int) -> None:
        super().__init__()
        self.elements = tuple(elements)
        self.cutoff = cutoff
        self.n_channels = self.n_gates = n_channels
        self.n_message = 0
        self.card: dict[str, Any] = {}
        self.config: Any = None
        self._compiled: dict[Any, Any] = {}  # see `engine.compiled.compiled_model`; copies and pickles make their own
        lookup = torch.full((max(self.elements) + 1,), -1)
        lookup[torch.tensor(self.elements)] = torch.arange(len(self.elements))
        self.species_of_number: Tensor
        self.min_distance: Tensor
        self.max_density: Tensor
        self.environment_max: Tensor
        self.register_buffer("species_of_number", lookup, persistent=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": {}}

    @property
    def edge_cutoff(self) -> Cutoff:
        """The cutoff of a graph's edges; longer ones add nothing."""
        return self.cutoff

    @property
    def receptive_field(self) -> float:
        """How far away the geometry is that enters the cell of an atom, Å."""
        return self.cutoff * (2 if self.n_message else 1)

    @abstractmethod
    def embed(self, near: Neighborhoods) -> Embedding:
        """Embedding of each atom's own neighbourhood, for any subset of the atoms."""

    @abstractmethod
    def inject(self, near: Neighborhoods, node: Tensor, messages: Tensor | None) -> tuple[Tensor, Tensor]:
        """`u` and `v` of the cell, see `Injection` [n_rows, n_channels].

        Args:
            near: neighbourhoods.
            node: of `Embedding` [n_rows, any].
            messages: of the neighbours, see `Embedding` [n_rows, n_neighbors, n_message]; None without.
        """

    def encode(self, vectors: Tensor, species: Tensor, neighbors: Tensor, mask: Tensor) -> Injection:
        """Injection of all atoms.

        Args:
            vectors: edge vectors [n_atoms, n_neighbors, 3], Å.
            species: [n_atoms].
            neighbors: [n_atoms, n_neighbors].
            mask: [n_atoms, n_neighbors].
        """
        near = Neighborhoods(vectors, species, species[neighbors], mask)
        node, message, gates = self.embed(near)
        messages = gathered(message, neighbors) if self.n_message else None
        return Injection(*self.inject(near, node, messages), gates)

    @abstractmethod
    def cell_weights(self) -> CellWeights:
        """The matrices of the cell, bounded so that it is a contraction."""

    @abstractmethod
    def readout(self, z: Tensor, species: Tensor) -> Tensor:
        """Energy of each atom from its features [n_rows], eV."""

    @abstractmethod
    def pair_energies(self, near: Neighborhoods) -> Tensor:
        """Energy of each atom that depends on the geometry alone [n_rows], eV."""

    @abstractmethod
    def reference_energies(self, species: Tensor) -> Tensor:
        """Energy of each atom that depends on its species alone [n_rows], eV, float64."""

    @abstractmethod
    def set_reference(self, energies: dict[int, float], scales: dict[int, float]) -> None:
        """Set each element's reference energy (eV/atom) and scale (eV/Å); keys are atomic numbers."""

    @abstractmethod
    def move_reference(self, shifts: dict[int, float]) -> None:
        """Add to the reference energies of some elements (eV/atom); keys are atomic numbers."""

    def set_min_distance(self, distances: dict[tuple[int, int], float]) -> None:
        """Set the distance (Å) of each pair of elements down to which the network is trusted; below, pairs repel.

        Keys are pairs of atomic numbers; a distance is `MIN_DISTANCE_SHARE` times the shortest one of the training
        frames, of which a pair without one has a share of the sum of the covalent radii.
        """
        for (first, second), distance in distances.items():
            i, j = self.elements.index(first), self.elements.index(second)
            self.min_distance[i, j] = self.min_distance[j, i] = distance

    def lower_min_distance(self, distances: dict[tuple[int, int], float]) -> None:
        """As `set_min_distance`, of pairs whose present distance is larger."""
        for (first, second), distance in distances.items():
            known = float(self.min_distance[self.elements.index(first), self.elements.index(second)])
            self.set_min_distance({(first, second): min(distance, known)})

    def calibrate(self, geometries: Callable[[], Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]]) -> None:
        """Look at the structures to be learnt, before training, as to scale what the network sees of them.

        Args:
            geometries: gives the arguments of `encode` for batches of structures, as often as it is called.
        """

    @abstractmethod
    def local_density(self, r: Tensor, near: Neighborhoods) -> Tensor:
        """Dimensionless density of the neighbours of each atom [n_rows]; 0 without neighbours.

        Args:
            r: distances [n_rows, n_neighbors], Å.
            near: neighbourhoods.
        """

    def extrapolation(self, u: Tensor, v: Tensor, species: Tensor) -> Tensor | None:  # noqa: ARG002
        """How far each atom's surroundings are from those of training [n_atoms]; None where that is not known.

        0 is the middle of what was learnt, 1 the mean over the atoms of the training structure that is farthest out.

        Args:
            u, v: of `Injection`.
            species: [n_atoms].
        """
        return None

    def species(self, numbers: Tensor) -> Tensor:
        """Index of the species of each atom [n_atoms].

        Raises:
            ValueError: if an element is not one of the model's.
        """
        known = self.species_of_number
        inside = (numbers >= 0) & (numbers < len(known))
        index = torch.where(inside, known[numbers.clamp(0, len(known) - 1)], -1)
        if bool((index < 0).any()):
            raise ValueError(unknown_elements(numbers.unique().tolist(), self.elements))
        return index

    def lagrangian(
        self, u: Tensor, v: Tensor, gates: Tensor, z: Tensor, adjoint: Tensor, neighbors: Tensor, species: Tensor
    ) -> Tensor:
        """`e_i(z) + λ_i · (f(z)_i − z_i)`: the equilibrium energy of each atom without pair and reference energies.

        Args:
            u, v, gates: the geometry's part of the cell, of the shapes in `Injection`.
            z: features [n_atoms, n_channels].
            adjoint: λ [n_atoms, n_channels], eV.
            neighbors: [n_atoms, n_neighbors].
            species: [n_atoms].

        Returns:
            [n_atoms], eV.
        """
        f = apply_cell(z, Injection(u, v, gates), neighbors, self.cell_weights())
        return self.readout(z, species) + (adjoint * (f - z)).sum(-1)


def unknown_elements(numbers: Collection[int], known: Sequence[int]) -> str:
    """The text of the error for atomic numbers some of which a model does not know; it names models that do."""
    from ase.data import chemical_symbols

    def names(zs: Iterable[int]) -> str:
        return ", ".join(chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"Z={z}" for z in zs)

    missing = sorted(set(numbers) - set(known))
    others = models_of(missing)
    remedy = f"Packaged models that know {names(missing)}: {', '.join(others)}." if others else ""
    return f"The structure contains {names(missing)}; this model knows {names(known)}. " + (
        remedy or f"No packaged model knows {names(missing)}: train one."
    )
