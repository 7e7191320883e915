"""Equilibrium energy model: `E = Σ_i [E_Z + readout(z_i)] + E_pair` with features at `z = f(z, x)`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_andersonn.nn.equilibrium_cell import EquilibriumCell, Injection
from ase_andersonn.nn.messages import gathered
from ase_andersonn.nn.neighborhoods import Neighborhoods

from .energy_config import EnergyModelConfig
from .short_range import MIN_DISTANCE_SHARE, ShortRange

__all__ = ["MIN_DISTANCE_SHARE", "Embedding", "EnergyModel"]

ENVIRONMENT_BUFFERS = ("environment_mean", "environment_whitening", "environment_max")
"""Buffers of the environments that were familiar in training, see `potentials/extrapolation.py`."""
MEASURED_BUFFERS = ("max_density", *ENVIRONMENT_BUFFERS)
"""These, and the highest local density."""


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


class EnergyModel(ShortRange, ABC):
    """`E = Σ_i [E_Z + readout(z_i)] + E_pair` with features at the fixed point `z = f(z, x)`.

    Three methods make an architecture: `embed` of the geometry, `cell_weights`, and `readout` of the energy; a fourth,
    `inject`, where messages come before the solve. Reference energies, short range, energies, forces and stress
    (`engine/energy_forces.py`) are the same for all models.

    Args:
        config: elements and sizes.
        n_features: width of `z`, where that is not `config.n_channels`.

    Attributes:
        n_channels: width of `z`.
        n_gates: coefficients of an edge in the messages, see `Injection`.
        n_message: width of the messages sent before the fixed-point solve; 0 for none.
        card: the model card, where the model came from a file.
    """

    def __init__(self, config: EnergyModelConfig, n_features: int | None = None) -> None:
        super().__init__(config)
        n_species, c = len(config.elements), config.n_channels
        self.n_channels = self.n_gates = c if n_features is None else n_features
        self.n_message = 0
        self.card: dict[str, Any] = {}
        self._compiled: dict[Any, Any] = {}  # see `engine.compiled.compiled_model`; copies and pickles make their own
        self.reference: Tensor
        self.scale: Tensor
        self.environment_mean: Tensor
        self.environment_whitening: Tensor
        self.environment_max: Tensor
        self.register_buffer("reference", torch.zeros(n_species, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_species))
        self.register_buffer("environment_mean", torch.zeros(n_species, 2 * c))
        self.register_buffer("environment_whitening", torch.zeros(n_species, 2 * c, 2 * c))
        self.register_buffer("environment_max", torch.ones(n_species))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": {}}

    @property
    def receptive_field(self) -> float:
        """How far away the geometry is that enters the cell of an atom, Å."""
        return self.cutoff * (2 if self.n_message else 1)

    @abstractmethod
    def embed(self, near: Neighborhoods) -> Embedding:
        """Embedding of each atom's own neighbourhood, for any subset of the atoms."""

    def inject(self, near: Neighborhoods, node: Tensor, messages: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """`u` and `v` of the cell, see `Injection` [n_rows, n_channels].

        Args:
            near: neighbourhoods.
            node: of `Embedding` [n_rows, any].
            messages: of the neighbours, see `Embedding` [n_rows, n_neighbors, n_message]; None without.
        """
        u, v = node.chunk(2, -1)
        return u, v

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
    def cell_weights(self) -> EquilibriumCell:
        """The cell with its present weights, bounded so that it is a contraction."""

    @abstractmethod
    def readout(self, z: Tensor, species: Tensor) -> Tensor:
        """Energy of each atom from its features [n_rows], eV."""

    def calibrate(self, geometries: Callable[[], Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]]) -> None:
        """Measure the scales of the features on the training structures, before training.

        Args:
            geometries: gives the arguments of `encode` for batches of structures, as often as it is called.
        """

    def reference_energies(self, species: Tensor) -> Tensor:
        """Reference energy of each atom's species [n_rows], eV, float64."""
        return self.reference[species]

    def _apply(self, fn: Any, recurse: bool = True) -> "EnergyModel":
        """Keep the reference energies in float64, whatever the precision of the rest."""
        reference = self.reference.double()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.reference = reference.to(self.reference.device)
        return self

    optional_tensors = (("max_density",), ENVIRONMENT_BUFFERS)

    def absent_tensors(self) -> tuple[str, ...]:
        """See `Potential.absent_tensors`: the clouds of familiar environments, before they are measured."""
        return () if bool(self.environment_whitening.any()) else ENVIRONMENT_BUFFERS

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of every module; what earlier versions did not measure stays unknown."""
        unknown = {name: getattr(self, name) for name in MEASURED_BUFFERS if name not in state_dict}
        return super().load_state_dict({**state_dict, **unknown}, strict, assign)

    def injected_scalars(self, u: Tensor, v: Tensor) -> Tensor:
        """Scalars of the injection [n_atoms, 2 n_channels], by which environments are compared."""
        return torch.cat([u[:, : self.config.n_channels], v[:, : self.config.n_channels]], -1)

    def extrapolation(self, u: Tensor, v: Tensor, species: Tensor) -> Tensor | None:
        """Out-of-distribution score `|W_Z (x − x̄_Z)|²` of each atom [n_atoms]; None before it was measured.

        `x` are the scalars of `u` and `v`. 0 is the mean of the training data, 1 the mean over the atoms of the
        training structure that is farthest out.

        Args:
            u, v: of `Injection`.
            species: [n_atoms].
        """
        if not bool(self.environment_whitening[:, -1, -1].any()):  # triangular, with a positive diagonal
            return None
        away = self.injected_scalars(u, v) - self.environment_mean[species]
        found = torch.zeros_like(away[:, 0])
        for index in species.unique().tolist():
            own = species == index
            found[own] = (away[own] @ self.environment_whitening[index]).square().sum(-1)
        return found

    def set_reference(self, energies: dict[int, float], scales: dict[int, float]) -> None:
        """Set each element's reference energy (eV/atom) and scale (eV/Å); keys are atomic numbers."""
        for index, number in enumerate(self.elements):
            self.reference[index] = energies[number]
            self.scale[index] = scales[number]

    def move_reference(self, shifts: dict[int, float]) -> None:
        """Add to the reference energies of some elements (eV/atom); keys are atomic numbers."""
        for number, shift in shifts.items():
            self.reference[self.elements.index(number)] += shift

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
        f = self.cell_weights().apply(z, Injection(u, v, gates), neighbors)
        return self.readout(z, species) + (adjoint * (f - z)).sum(-1)
