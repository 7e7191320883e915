"""Extensive networks on density images of atoms.

    E = Σ_i e_0(Z_i) + Σ_t [e(image in tile t) − e(empty tile)]

The image (`lattice.density_image`) is a smooth function of the positions and the network of the image, so forces and
stress are exact derivatives. Empty tiles have zero energy.

The energy is not exactly invariant: translating all atoms by less than a tile's focus, or rotating them, changes it
slightly, and the forces do not sum to zero (egg-box effect). Training with random origins reduces this, and the
evaluation averages over several origins. The remaining net force is in the diagnostics.

Mills et al., Chem. Sci. 10, 4129 (2019).
"""

import itertools
import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor, nn

from ase_andersonn.backends import exact_matmul
from ase_andersonn.potentials.interface import ConvergenceError, Evaluator, Potential, Settings
from ase_andersonn.potentials.short_range import unknown_elements
from ase_andersonn.structures.convert import check_atoms

from .density_image import gaussian_image
from .grid import TileGrid
from .model import NetworkKind, tile_network
from .networks import UnsolvedError


@dataclass(frozen=True)
class ImageConfig:
    """Hyperparameters of an `ImageModel`.

    Args:
        elements: atomic numbers, ascending.
        n_axes: 3, or 2 for layers: the image is then a projection on the plane of the first two cell vectors.
        spacing: largest distance of pixels along a cell vector, Å. Along a periodic vector it is reduced until an
            integer number of foci fits. The energy of a supercell is exactly extensive if its spacing is that of the
            unit cell, as when `spacing × focus` divides the cell vectors. It has a small discontinuity where the number
            of pixels changes with the cell.
        sigma: width of the Gaussians, Å.
        cutoff: cutoff of the Gaussians, Å.
        focus: pixels of a tile's focus along each axis.
        context: pixels of context on each side.
        origins: number of grid origins per axis over which energies are averaged.
        network: kind of the tile network; see `lattice.networks`.
        n_hidden: width of the network.
        n_layers: hidden layers, or convolutions.
        contraction: contraction factor of an equilibrium network.
    """

    elements: tuple[int, ...]
    n_axes: Literal[2, 3] = 3
    spacing: float = 0.25
    sigma: float = 0.3
    cutoff: float = 1.5
    focus: int = 4
    context: int = 4
    origins: int = 1
    network: NetworkKind = "fully_connected"
    n_hidden: int = 32
    n_layers: int = 1
    contraction: float = 0.7

    def __post_init__(self) -> None:
        lengths = {"spacing": self.spacing, "sigma": self.sigma, "cutoff": self.cutoff}
        for name, value in lengths.items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value} Å; it has to be positive.")
        if self.origins < 1:
            raise ValueError(f"origins is {self.origins}; it is a number of origins along each axis, at least 1.")
        if not self.elements or list(self.elements) != sorted(set(self.elements)) or self.elements[0] < 1:
            raise ValueError(f"elements is {self.elements}; give different atomic numbers, ascending.")
        self.tiles((True,) * self.n_axes)  # checks focus and context

    def tiles(self, periodic: tuple[bool, ...]) -> TileGrid:
        """Tiles of an image with these boundary conditions."""
        return TileGrid((self.focus,) * self.n_axes, (self.context,) * self.n_axes, periodic)


class ImageModel(Potential):
    """Potential energy of atoms from their density image.

    Args:
        config: hyperparameters.

    Attributes:
        atomic: energy per atom of each element [n_elements], eV.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.config = config
        self.elements = config.elements
        self.card: dict[str, Any] = {}
        grid = config.tiles((True,) * config.n_axes)
        self.network = tile_network(config.network, grid, 1, config.n_hidden, config.n_layers, config.contraction)
        self.atomic = nn.Parameter(torch.zeros(len(config.elements)))

    def n_pixels(self, cell: Tensor, periodic: tuple[bool, ...]) -> tuple[int, ...]:
        """Pixels along each axis of a cell [3, 3], Å.

        Along an open axis there is one more focus than the cell needs, so that the origin can be shifted.

        Raises:
            ValueError: if a vector of the cell is zero, or too short for a tile.
        """
        c = self.config
        lengths = cell[: c.n_axes].detach().norm(dim=1).tolist()
        if not all(lengths):
            raise ValueError(
                f"the image spans the first {c.n_axes} cell vectors, of {lengths} Å; set them, also along open axes, "
                "for example with atoms.center(vacuum=...)."
            )
        found = []
        for axis, (length, ring) in enumerate(zip(lengths, periodic, strict=True)):
            n = math.ceil(length / c.spacing - 1e-9)
            n = math.ceil(n / c.focus) * c.focus if ring else n + c.focus
            tile = c.focus + 2 * c.context
            if ring and n < tile:
                raise ValueError(
                    f"cell vector {axis + 1} is {length:g} Å long, {n} pixels, fewer than the {tile} of a tile; repeat "
                    "the cell, or use a model with smaller tiles."
                )
            found.append(n)
        return tuple(found)

    def image(
        self, positions: Tensor, numbers: Tensor, cell: Tensor, periodic: tuple[bool, ...], origin: Tensor | None = None
    ) -> Tensor:
        """Image [*n_pixels] of atomic numbers relative to the model's largest; see `forward`."""
        c = self.config
        n_pixels = self.n_pixels(cell, periodic)
        counts = cell.new_tensor(n_pixels)
        given = counts - c.focus * (~torch.tensor(periodic, device=cell.device))
        window = cell[: c.n_axes] * (counts / given)[:, None]
        if origin is not None:
            positions = positions + (origin * c.focus / counts) @ window
        weights = numbers.to(positions) / self.elements[-1]
        return gaussian_image(positions, weights, window, n_pixels, periodic, sigma=c.sigma, cutoff=c.cutoff)

    def forward(
        self, positions: Tensor, numbers: Tensor, cell: Tensor, periodic: tuple[bool, ...], origin: Tensor | None = None
    ) -> Tensor:
        """Energy of one structure, eV, float64, differentiable in positions and cell.

        Args:
            positions: [n_atoms, 3], Å.
            numbers: atomic numbers [n_atoms].
            cell: [3, 3], Å.
            periodic: per axis of the image.
            origin: shift of the atoms relative to the tiles, in foci [n_axes]; `torch.rand(n_axes)` for a random one,
                as in training.

        Raises:
            ValueError: for elements outside the model, and cells that do not fit its tiles.
        """
        image = self.image(positions, numbers, cell, periodic, origin)
        tiles = self.network(self.config.tiles(periodic).pad(image[None, None]))
        empty = self.network(image.new_zeros(1, 1, *self.network.grid.tile)).reshape(())
        energy: Tensor = (tiles - empty).sum(dtype=torch.float64) + self.atomic[self._species(numbers)].double().sum()
        return energy

    def _species(self, numbers: Tensor) -> Tensor:
        known = torch.tensor(self.elements, device=numbers.device)
        index = torch.searchsorted(known, numbers).clamp(max=len(known) - 1)
        if bool((known[index] != numbers).any()):
            raise ValueError(unknown_elements(numbers.unique().tolist(), self.elements))
        return index

    def origins(self, like: Tensor) -> Iterator[Tensor]:
        """Grid origins over which energies are averaged, in foci [n_axes]."""
        n = self.config.origins
        for place in itertools.product(range(n), repeat=self.config.n_axes):
            yield like.new_tensor(place) / n


class ImageEvaluator(Evaluator):
    """Energies, forces and stresses of an `ImageModel`, averaged over grid origins.

    There are no per-atom energies.

    Args:
        model: the model, on the settings' device and in their precision.
        settings: see `AndersoNN`.

    Attributes:
        diagnostics: pixels along each axis (`pixels`), number of tiles (`tiles`) and of origins (`origins`), the
            remaining net force, eV/Å, if forces were asked for (`net_force`), seconds (`times`).
    """

    def __init__(self, model: ImageModel, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.diagnostics: dict[str, Any] = {}

    def calculate(self, atoms: Atoms, *, forces: bool, stress: bool, changes: Collection[str]) -> dict[str, Any]:  # noqa: ARG002 (nothing is kept)
        """See `Evaluator.calculate`."""
        begun = time.perf_counter()
        check_atoms(atoms)
        model, n_axes = self.model, self.model.config.n_axes
        options: dict[str, Any] = {"dtype": self.settings.dtype, "device": self.settings.device}
        positions = torch.tensor(atoms.positions, **options).requires_grad_(forces or stress)
        numbers = torch.tensor(atoms.numbers, device=self.settings.device)
        strain = torch.zeros(3, 3, **options, requires_grad=stress)
        cell = torch.tensor(atoms.cell.array, **options)
        periodic = tuple(atoms.pbc[:n_axes].tolist())
        wanted = [x for x, asked in ((positions, forces or stress), (strain, stress)) if asked]
        energy, n_origins, gradients = 0.0, 0, [torch.zeros_like(x) for x in wanted]
        for origin in model.origins(positions):
            with exact_matmul(), torch.set_grad_enabled(bool(wanted)):
                deform = torch.eye(3, **options) + 0.5 * (strain + strain.T)
                value = self._energy(positions @ deform, numbers, cell @ deform, periodic, origin)
                if wanted:
                    found = torch.autograd.grad(value, wanted)
                    gradients = [sum_ + one for sum_, one in zip(gradients, found, strict=True)]
            energy += float(value.detach())
            n_origins += 1
        energy /= n_origins
        if not math.isfinite(energy):
            raise CalculationFailed("the energy is not finite; check the model's weights.")
        results: dict[str, Any] = {"energy": energy, "free_energy": energy}
        pixels = model.n_pixels(cell, periodic)
        n_tiles = math.prod(model.config.tiles(periodic).n_tiles(pixels))
        self.diagnostics = {"pixels": pixels, "tiles": n_tiles, "origins": n_origins}
        if wanted:
            results["forces"] = -gradients[0].double().cpu().numpy() / n_origins
            self.diagnostics["net_force"] = float(np.linalg.norm(results["forces"].sum(0)))
        if stress:
            virial = gradients[1].double().cpu().numpy() / n_origins
            results["stress"] = full_3x3_to_voigt_6_stress(virial / atoms.get_volume())
        self.diagnostics |= {"device": str(self.settings.device), "times": {"evaluate": time.perf_counter() - begun}}
        return results

    def reset(self) -> None:
        """See `Evaluator.reset`."""
        self.diagnostics = {}

    def _energy(self, *arguments: Any) -> Tensor:
        try:
            energy: Tensor = self.model(*arguments)
        except UnsolvedError as error:
            raise ConvergenceError(str(error)) from error
        return energy
