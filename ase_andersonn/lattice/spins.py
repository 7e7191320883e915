"""Spins on a lattice as ase.Atoms: one atom per site, spins as initial magnetic moments, and the grid of sites."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Lattice = Literal["chain", "square", "triangular", "cubic"]
PRIMITIVE: dict[str, NDArray[np.float64]] = {
    "chain": np.eye(3)[:1],
    "square": np.eye(3)[:2],
    "triangular": np.array([[1.0, 0.0, 0.0], [0.5, math.sqrt(0.75), 0.0]]),
    "cubic": np.eye(3),
}
"""Primitive vectors of unit length [n_axes, 3]; site indices are coordinates in this basis."""
SITE_TOLERANCE = 1e-3
"""Largest distance of an atom from its site, in units of the spacing."""


def spin_lattice(
    kind: Lattice,
    size: int | Sequence[int],
    *,
    spins: Literal["up", "random"] | NDArray[Any] | Sequence[float] = "up",
    spacing: float = 1.0,
    periodic: bool | Sequence[bool] = True,
    symbol: str = "Fe",
    seed: int | None = None,
) -> Atoms:
    """Spins on a lattice: `r_ij… = (i a₁ + j a₂ + …) spacing`, the last index running fastest.

    Args:
        kind: `"chain"`, `"square"`, `"triangular"` (60° between a₁ and a₂) or `"cubic"`.
        size: sites along each axis, or one number for all.
        spins: `"up"` (all +1), `"random"` (±1), or the values, in the order of the sites.
        spacing: distance of neighbouring sites, Å.
        periodic: one flag per axis, or one for all; other directions are open.
        symbol: element of the atoms at the sites.
        seed: seed of random spins.

    Raises:
        ValueError: for an unknown lattice, or a wrong number of sizes, flags or spins.
    """
    if kind not in PRIMITIVE:
        raise ValueError(f"there is no lattice {kind!r}; choose one of {', '.join(PRIMITIVE)}.")
    vectors = PRIMITIVE[kind]
    n_axes = len(vectors)
    sizes = (size,) * n_axes if isinstance(size, int) else tuple(int(n) for n in size)
    rings = (periodic,) * n_axes if isinstance(periodic, bool) else tuple(periodic)
    if len(sizes) != n_axes or len(rings) != n_axes or min(sizes) < 1:
        raise ValueError(f"size is {size} and periodic {periodic}; a {kind} lattice has {n_axes} axes of ≥ 1 sites.")
    if not (math.isfinite(spacing) and spacing > 0):
        raise ValueError(f"spacing is {spacing} Å; it has to be positive.")
    indices = np.indices(sizes).reshape(n_axes, -1).T
    cell = np.zeros((3, 3))
    cell[:n_axes] = spacing * np.array(sizes)[:, None] * vectors
    atoms = Atoms(
        numbers=np.full(len(indices), Atoms(symbol).numbers[0]),
        positions=spacing * indices @ vectors,
        cell=cell,
        pbc=(*rings, *(False for _ in range(3 - n_axes))),
    )
    atoms.set_initial_magnetic_moments(_spins(spins, len(atoms), seed))
    return atoms


def _spins(spins: Any, n_sites: int, seed: int | None) -> NDArray[np.float64]:
    if isinstance(spins, str):
        if spins == "up":
            return np.ones(n_sites)
        if spins == "random":
            return np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), n_sites)
        raise ValueError(f"spins is {spins!r}; give 'up', 'random' or one value per site.")
    values = np.asarray(spins, dtype=float).reshape(-1)
    if len(values) != n_sites:
        raise ValueError(f"{len(values)} spins were given for {n_sites} sites.")
    return values


@dataclass(frozen=True)
class Sites:
    """Assignment of the atoms of a structure to the sites of a lattice.

    Attributes:
        kind: the lattice.
        sizes: sites along each axis.
        periodic: per axis.
        site: flat index (the last axis runs fastest) of each atom's site, int64 [n_atoms].
        atom: the atom on each site, int64 [n_sites]; the inverse of `site`.
    """

    kind: str
    sizes: tuple[int, ...]
    periodic: tuple[bool, ...]
    site: NDArray[np.int64]
    atom: NDArray[np.int64]
    _positions: NDArray[np.float64]
    _inverse: NDArray[np.float64]
    _origin: NDArray[np.float64]

    @staticmethod
    def of(atoms: Atoms, kind: str) -> "Sites":
        """Assign the atoms of a structure to lattice sites.

        Translating the structure by less than half the spacing has no effect; a larger translation shifts the grid's
        origin and therefore the tiles.

        Args:
            atoms: cell vectors 1 … n_axes along the lattice's primitive vectors, one atom a site.
            kind: the lattice.

        Raises:
            ValueError: if the atoms do not form the lattice; the message says where.
        """
        if len(atoms) == 0:
            raise ValueError("the structure has no atoms.")
        n_axes = len(PRIMITIVE[kind])
        sizes, periodic = _sizes(atoms, kind), tuple(atoms.pbc[:n_axes].tolist())
        if atoms.pbc[n_axes:].any():
            raise ValueError(
                f"pbc is {atoms.pbc.tolist()}; a {kind} lattice is periodic along its first {n_axes} vectors at most."
            )
        steps = atoms.cell.array[:n_axes] / np.array(sizes)[:, None]
        inverse = np.linalg.pinv(steps)
        coordinates = np.round((atoms.positions - atoms.positions[0]) @ inverse)
        coordinates += np.round(atoms.positions[0] @ inverse)
        origin = atoms.positions[0] - coordinates[0] @ steps
        off = np.abs(atoms.positions - origin - coordinates @ steps).max(1)
        if not off.max() < SITE_TOLERANCE * np.linalg.norm(steps[0]):
            raise ValueError(
                f"atom {int(off.argmax())} is {off.max():.3g} Å away from the nearest site of the {kind} lattice; "
                "spins sit on their sites."
            )
        site = flat_index(coordinates.astype(np.int64), sizes, periodic)
        counts = np.bincount(site, minlength=len(atoms))
        if counts.max() > 1:
            raise ValueError(
                f"{counts.max()} atoms share site {int(counts.argmax())} of the lattice; each site has one atom."
            )
        return Sites(
            kind, sizes, periodic, site, np.argsort(site, kind="stable"), atoms.positions.copy(), inverse, origin
        )

    def check(self, atoms: Atoms, changed: NDArray[np.int64]) -> None:
        """Raise if some atoms have left their sites; the cost does not depend on the number of other atoms.

        Raises:
            ValueError: if one has moved to another site.
        """
        if np.array_equal(atoms.positions[changed], self._positions[changed]):
            return
        places = (atoms.positions[changed] - self._origin) @ self._inverse
        found = flat_index(np.round(places).astype(np.int64), self.sizes, self.periodic)
        if not np.array_equal(found, self.site[changed]):
            raise ValueError(
                "an atom has left its site; only the moments of spins on a lattice may change, not their positions."
            )


def flat_index(coordinates: NDArray[np.int64], sizes: Sequence[int], periodic: Sequence[bool]) -> NDArray[np.int64]:
    """Flat index of sites given by their coordinates [n, n_axes].

    Raises:
        ValueError: for a site outside an open axis.
    """
    if not all(periodic):
        outside = ((coordinates < 0) | (coordinates >= np.array(sizes))) & ~np.array(periodic)
        if outside.any():
            raise ValueError(
                f"{int(outside.any(1).sum())} atoms lie outside the cell along an axis that is not periodic; "
                "move the structure into its cell."
            )
    flat: NDArray[np.int64] = np.ravel_multi_index(tuple(coordinates.T), tuple(sizes), mode="wrap")
    return flat


def _sizes(atoms: Atoms, kind: str) -> tuple[int, ...]:
    """Sites along each axis, from the lengths of the cell vectors and the number of atoms."""
    vectors = PRIMITIVE[kind]
    n_axes = len(vectors)
    cell = atoms.cell.array[:n_axes]
    lengths = np.linalg.norm(cell, axis=1)
    if not lengths.all():
        raise ValueError(f"the first {n_axes} cell vectors span the {kind} lattice; they are {cell.tolist()} Å.")
    directions = cell / lengths[:, None]
    if not np.allclose(directions @ directions.T, vectors @ vectors.T, atol=SITE_TOLERANCE):
        angles = np.degrees(np.arccos(np.clip(directions @ directions.T, -1, 1)))[np.triu_indices(n_axes, 1)]
        raise ValueError(
            f"the cell's angles are {', '.join(f'{a:.1f}°' for a in angles)}; this is not a {kind} lattice. "
            "Create one with spin_lattice()."
        )
    spacing = (float(np.prod(lengths)) / len(atoms)) ** (1 / n_axes)
    sizes = np.round(lengths / spacing).astype(int)
    if int(np.prod(sizes)) != len(atoms) or not np.allclose(lengths / spacing, sizes, rtol=SITE_TOLERANCE):
        raise ValueError(
            f"{len(atoms)} atoms do not fill a {kind} lattice whose cell vectors are {lengths.tolist()} Å long; "
            "every site has one atom."
        )
    return tuple(sizes.tolist())


def read_values(moments: NDArray[Any], values: NDArray[np.float64]) -> NDArray[np.int8]:
    """Index of each moment among the allowed values, int8.

    Args:
        moments: initial magnetic moments [n].
        values: allowed values, ascending.

    Raises:
        ValueError: for any other value.
    """
    if moments.ndim != 1:
        raise ValueError(f"the moments have the shape {moments.shape}; a spin lattice has one number per site.")
    digits = ((values[1:] + values[:-1]) / 2).searchsorted(moments)  # the nearest
    off = np.abs(values.take(digits) - moments)
    if not off.max(initial=0.0) < SITE_TOLERANCE:
        wrong = ~(off < SITE_TOLERANCE)
        given = ", ".join(f"{m:g}" for m in np.unique(moments[wrong])[:5])
        raise ValueError(
            f"{int(wrong.sum())} magnetic moments are not among {', '.join(f'{v:g}' for v in values)}: {given}. "
            "Set them with atoms.set_initial_magnetic_moments()."
        )
    return digits.astype(np.int8)
