"""What of a structure lies outside the training data of a model, as far as can be said without its network."""

from collections.abc import Iterator, Mapping
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ase_andersonn.structures.neighbors import neighbor_edges

EXTRAPOLATION = "its results for them are an extrapolation without known errors."
NEIGHBORS = 5.0
"""Å: how far apart atoms are neighbours, of pairs of elements that were never learnt."""


def domain_warnings(card: Mapping[str, Any], atoms: Atoms, told: set[frozenset[int]] | None = None) -> Iterator[str]:
    """A sentence for everything that the training data of a model had nothing of; of charges and spins see `metadata`.

    The card may say which elements stood together (`combinations`, lists of atomic numbers), which pairs of elements
    were neighbours (`pairs`; those that stood together, where it does not), how many atoms the min_atoms structure had
    (`min_atoms`), whether structures were periodic (`periodic`, `[false]`, `[true]` or both; periodic is what is so in
    one direction at least), and whether some molecules had odd numbers of electrons (`odd_electrons`). What it knows
    of distances is said by `engine.domain_monitor`.

    Args:
        card: the model card.
        atoms: a structure of elements that the model knows.
        told: pairs of elements that need no further look; those that were learnt or that a sentence names are added.
    """
    yield from _untrained_pairs(card, atoms, set() if told is None else told)
    min_atoms, periodic = card.get("min_atoms"), card.get("periodic")
    if min_atoms and len(atoms) < min_atoms and not atoms.pbc.any() and False in (periodic or [False]):
        yield (
            f"the model was not trained on molecules of fewer than {min_atoms} atoms, this one has {len(atoms)}: "
            f"{EXTRAPOLATION}"
        )
    if periodic and bool(atoms.pbc.any()) not in periodic:
        kind = "periodic structures" if atoms.pbc.any() else "molecules and clusters"
        yield f"the model was not trained on {kind}: {EXTRAPOLATION}"
    if card.get("odd_electrons") is False and not atoms.pbc.any() and atoms.numbers.sum() % 2:
        yield f"the model was not trained on molecules with an odd number of electrons, radicals: {EXTRAPOLATION}"


def _untrained_pairs(card: Mapping[str, Any], atoms: Atoms, told: set[frozenset[int]]) -> Iterator[str]:
    """A sentence for an element, or a pair of elements with atoms that are neighbours, that training had nothing of."""
    combinations = card.get("combinations", ())
    met = card.get("pairs") or [pair for known in combinations for pair in combinations_with_replacement(known, 2)]
    if not met:
        return
    here = sorted(set(atoms.numbers.tolist()))
    doubted = {frozenset(pair) for pair in combinations_with_replacement(here, 2)} - told
    if not doubted:
        return
    learnt = doubted.intersection(map(frozenset, met))
    told |= learnt  # so that later calls need not look again
    doubted -= learnt
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


def name_of(atoms: Atoms) -> str:
    """What a structure among others is called: `atoms.info["name"]`, or its formula."""
    return str(atoms.info.get("name") or atoms.symbols)


def of_structure(name: str, text: str) -> str:
    """A warning of one structure among others."""
    return f"{name}: {text} Of other structures of which the same is true, nothing more is said."
