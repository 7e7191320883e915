"""Structures of a base: strained and rattled, with defects, cut, substituted, pressed together; and walks from there.

A walk is a chain of overdamped Langevin steps, x ← x + h F + √(2 h k T) ξ with ξ normal, and of steps of the cell along
the stress, ε = −c σ V / N; without temperature it is a relaxation. Every structure on the way is labelled, so that
starts of high energy come with ones nearer to thermal ones. Each chain has random numbers of its own: what it draws
does not depend on the others.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.build import surface
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from ase.stress import voigt_6_to_full_3x3_stress
from ase.units import kB
from packed import rounded
from sources import Base
from teacher import Label, Labeller

Random = np.random.Generator
BOXED = ("dimer", "molecule", "slab")
"""Tags of structures with vacuum around them, whose cells stay."""
NOBLE = frozenset({2, 10, 18, 36, 54})
"""Not put in the place of other elements."""
MOST_ATOMS = 32
CLOSE = {"dimer": 0.5, "contact": 0.5}
"""Shortest distance in sums of the covalent radii; 0.6 for other tags."""
LARGEST_FORCE, LARGEST_STRESS, LARGEST_ENERGY = 30.0, 1.0, 40.0
"""eV/Å, eV/Å³ and eV an atom; what the teacher labels with more is left out."""
TEMPERATURES, RELAXED = (150.0, 300.0, 600.0, 1000.0, 1800.0), 0.25
"""K; and the share of walks that go down without noise."""
STEPS, RELAXING_STEPS = 3, 6
FURTHEST = 0.18
"""Å: longest step along a force."""


class Start(NamedTuple):
    """A structure to be labelled, and its tag."""

    tag: str
    atoms: Atoms


def grown(atoms: Atoms, at_least: int) -> Atoms:
    """Doubled along the shortest axis until it has so many atoms, or would have too many."""
    while len(atoms) < at_least and 2 * len(atoms) <= MOST_ATOMS:
        times = np.ones(3, int)
        times[np.argmin(atoms.cell.lengths())] = 2
        atoms = atoms * times
    return atoms.copy()


def strained(atoms: Atoms, linear: float, shear: float, rng: Random) -> Atoms:
    """Lengths times 1 + `linear`, and a random symmetric strain of this standard deviation."""
    noise = rng.normal(0, shear, (3, 3))
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ (np.eye(3) * (1 + linear) + (noise + noise.T) / 2), scale_atoms=True)
    return atoms


def rattled(atoms: Atoms, width: float, rng: Random) -> Atoms:
    """Every coordinate moved by a normal number of this standard deviation, Å."""
    atoms = atoms.copy()
    atoms.positions += rng.normal(0, width, (len(atoms), 3))
    return atoms


def evenly(low: float, high: float, rng: Random) -> float:
    """A number even in its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def perturbed(atoms: Atoms, how: str, rng: Random) -> Atoms:
    """A supercell strained and rattled: at `rest` nearly, `mild`, `hot`, or `pressed` and drawn out.

    Raises:
        KeyError: for another word.
    """
    width, shear, linear = {
        "rest": (0.01, 0.005, rng.normal(0, 0.01)),
        "mild": (evenly(0.03, 0.12, rng), 0.02, rng.uniform(-0.05, 0.06)),
        "hot": (evenly(0.1, 0.35, rng), 0.06, rng.uniform(-0.08, 0.10)),
        "pressed": (0.03, 0.01, rng.uniform(-0.14, 0.18)),
    }[how]
    return rattled(strained(grown(atoms, int(rng.choice([1, 2, 4, 8]))), linear, shear, rng), width, rng)


# Changes of a crystal. Each gives the changed structure, or None where that makes no sense.


def vacancy(atoms: Atoms, rng: Random) -> Atoms | None:
    """One atom of a supercell is missing."""
    atoms = perturbed(grown(atoms, 8), "mild", rng)
    if len(atoms) <= 4:
        return None
    del atoms[int(rng.integers(len(atoms)))]
    return atoms


def interstitial(atoms: Atoms, rng: Random) -> Atoms | None:
    """One atom more, of a species that is there, in the roomiest of some random places."""
    atoms = perturbed(grown(atoms, 8), "mild", rng)
    if len(atoms) >= MOST_ATOMS:
        return None
    number = int(rng.choice(atoms.numbers))
    trials = [atoms + Atoms([number], [place @ atoms.cell.array]) for place in rng.uniform(size=(20, 3))]
    return max(trials, key=room)


def substituted(atoms: Atoms, rng: Random, species: Collection[int]) -> Atoms | None:
    """All atoms of one species become another; the cell goes half the way that the radii tell."""
    old = int(rng.choice(np.unique(atoms.numbers)))
    choices = sorted(set(species) - NOBLE - {old})
    if not choices:
        return None
    atoms, before = atoms.copy(), size(atoms)
    atoms.numbers[atoms.numbers == old] = int(rng.choice(choices))
    atoms.set_cell(atoms.cell.array * (1 + (size(atoms) / before) ** (1 / 3)) / 2, scale_atoms=True)
    return perturbed(atoms, "mild", rng)


def slab(atoms: Atoms, rng: Random) -> Atoms | None:
    """Cut along a low plane, with 8 Å of vacuum."""
    if len(atoms) > 10:
        return None
    plane = [(1, 0, 0), (1, 1, 0), (1, 1, 1)][rng.integers(3)]
    try:
        cut = surface(atoms, plane, 2 if len(atoms) < 6 else 1, vacuum=4.0, periodic=True)
    except ValueError:  # ASE, of cells that it cannot cut
        return None
    return rattled(cut, 0.05, rng)


def contact(atoms: Atoms, rng: Random) -> Atoms | None:
    """Two neighbours pressed together to 0.55 to 0.85 sums of their covalent radii; the others stay."""
    atoms = perturbed(grown(atoms, 4), "mild", rng)
    first, second, distance, vector = neighbor_list("ijdD", atoms, 4.0)
    pairs = np.flatnonzero(first != second)
    if not len(pairs):
        return None
    k = pairs[np.argmin(ratios(atoms, first, second, distance)[pairs] + rng.uniform(0, 0.3, len(pairs)))]
    wanted = rng.uniform(0.55, 0.85) * covalent_radii[atoms.numbers[[first[k], second[k]]]].sum()
    move = (distance[k] - wanted) / 2 * vector[k] / distance[k]
    atoms.positions[first[k]] += move
    atoms.positions[second[k]] -= move
    return atoms


CHANGES = {"substituted": 0.25, "vacancy": 0.08, "slab": 0.08, "contact": 0.08, "interstitial": 0.04}
"""How often a crystal undergoes each."""
KINDS = {"rest": 0.3, "mild": 0.4, "hot": 0.15, "pressed": 0.15}


def size(atoms: Atoms) -> float:
    """Sum of the cubes of the covalent radii, Å³."""
    return float((covalent_radii[atoms.numbers] ** 3).sum())


def ratios(atoms: Atoms, first: np.ndarray, second: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Distances in sums of the covalent radii."""
    radii = covalent_radii[atoms.numbers]
    return distance / (radii[first] + radii[second])


def room(atoms: Atoms) -> float:
    """The shortest distance in sums of the covalent radii; infinite where none is below 4 Å."""
    first, second, distance = neighbor_list("ijd", atoms, 4.0)
    return float(ratios(atoms, first, second, distance).min(initial=np.inf))


def changed(atoms: Atoms, how: str, species: Collection[int], rng: Random) -> Atoms | None:
    """The crystal after one of the `CHANGES`."""
    if how == "substituted":
        return substituted(atoms, rng, species)
    change = {"vacancy": vacancy, "slab": slab, "contact": contact, "interstitial": interstitial}[how]
    return change(atoms, rng)


def drawn(base: Base, species: Collection[int], rng: Random) -> Iterator[Start]:
    """The structures of one visit to a base: itself perturbed, and of crystals maybe one change."""
    atoms = base.draw(rng)
    if not base.crystal:
        boxed = base.tag in BOXED
        yield Start(base.tag, atoms if boxed else perturbed(atoms, one_of(KINDS, rng), rng))
        return
    yield Start(base.tag, perturbed(atoms, one_of(KINDS, rng), rng))
    how = one_of({**CHANGES, "": 1 - sum(CHANGES.values())}, rng)
    after = changed(atoms, how, species, rng) if how else None
    if after is not None:
        yield Start(how, after)


def one_of(shares: dict[str, float], rng: Random) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))


def usable(start: Start, species: Collection[int]) -> bool:
    """Whether it is small, of these species, without atoms on each other, and not torn apart."""
    atoms = start.atoms
    widest = 900.0 if start.tag in BOXED else 250.0
    return (
        0 < len(atoms) <= MOST_ATOMS
        and set(atoms.numbers.tolist()) <= set(species)
        and atoms.get_volume() / len(atoms) < widest
        and room(atoms) > CLOSE.get(start.tag, 0.6)
    )


# Walks


@dataclass(frozen=True)
class Walker:
    """Where a walk stands.

    Attributes:
        temperature: K; zero for a relaxation.
        step: steps since the start.
        rng: the walk's own random numbers.
    """

    tag: str
    atoms: Atoms
    temperature: float
    rng: Random
    step: int = 0

    @property
    def last(self) -> int:
        return 1 if self.tag == "dimer" else STEPS if self.temperature else RELAXING_STEPS


class Frame(NamedTuple):
    """A structure of a walk and its label, if it has one."""

    tag: str
    step: int
    atoms: Atoms
    label: Label | None


def walker(start: Start, rng: Random) -> Walker:
    """At the start of a walk at a random temperature."""
    temperature = 0.0 if rng.uniform() < RELAXED else float(rng.choice(TEMPERATURES))
    return Walker(start.tag, rounded(start.atoms), temperature, rng)


def moved(walk: Walker, label: Label) -> Walker:
    """One step further; relaxations always move the cell, others half of the time."""
    rng, atoms = walk.rng, walk.atoms.copy()
    mobility = rng.uniform(0.02, 0.08)  # h, Å²/eV
    along = mobility * label.forces
    along *= np.minimum(1, FURTHEST / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9))
    atoms.positions += along + rng.normal(0, 1, along.shape) * (2 * mobility * kB * walk.temperature) ** 0.5
    if walk.tag not in BOXED and (walk.temperature == 0 or rng.uniform() < 0.5):
        strain = -0.02 * voigt_6_to_full_3x3_stress(label.stress) * atoms.get_volume() / len(atoms)
        strain *= min(1.0, 0.03 / max(float(np.abs(strain).max()), 1e-9))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return replace(walk, atoms=rounded(atoms), step=walk.step + 1)


def sound(label: Label | None, n_atoms: int) -> bool:
    """Whether there is a label, finite and not so large that it can only be extrapolated."""
    return label is not None and bool(
        np.isfinite(label.energy)
        and np.abs(label.forces).max() < LARGEST_FORCE
        and np.abs(label.stress).max() < LARGEST_STRESS
        and abs(label.energy) / n_atoms < LARGEST_ENERGY
    )


def walks(
    walkers: Iterable[Walker],
    label: Labeller,
    species: Collection[int],
    *,
    all_kept: bool = False,
    batch_atoms: int = 260,
) -> list[Frame]:
    """All structures on the walks to their ends, labelled in batches.

    Args:
        walkers: at their starts.
        label: gives the labels and so the forces.
        species: that the structures may have.
        all_kept: whether structures whose labels are not sound are among them; a walk ends there in any case.
        batch_atoms: atoms labelled at once, about.
    """
    waiting, frames = list(walkers)[::-1], []
    while waiting:
        batch = [waiting.pop()]
        while waiting and sum(len(walk.atoms) for walk in batch) + len(waiting[-1].atoms) <= batch_atoms:
            batch.append(waiting.pop())
        for walk, found in zip(batch, label([walk.atoms for walk in batch]), strict=True):
            trusted = sound(found, len(walk.atoms))
            if trusted or all_kept:
                frames.append(Frame(walk.tag, walk.step, walk.atoms, found))
            if trusted and walk.step < walk.last:
                after = moved(walk, found)
                if usable(Start(after.tag, after.atoms), species):
                    waiting.append(after)
    return frames
