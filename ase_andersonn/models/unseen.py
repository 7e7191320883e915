"""What of a structure lies outside the training data of a model, as far as can be said without its network."""

from collections.abc import Iterator, Mapping
from typing import Any

from ase import Atoms

EXTRAPOLATION = "its results for them are an extrapolation without known errors."


def unseen(card: Mapping[str, Any], atoms: Atoms, *, reads_magmoms: bool = False) -> Iterator[str]:
    """A sentence for everything that the training data of a model had nothing of, charges and spins among it.

    The card may say which elements stood together (`combinations`, lists of atomic numbers), how many atoms the
    smallest structure had (`smallest`), whether structures were periodic (`periodic`, `[false]`, `[true]` or both;
    periodic is what is so in one direction at least), and whether some molecules had odd numbers of electrons
    (`odd_electrons`).

    Args:
        card: the model card.
        atoms: a structure of elements that the model knows.
        reads_magmoms: whether the model's energy depends on the initial magnetic moments.
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
    if atoms.get_initial_charges().any() or atoms.info.get("charge"):
        yield "the model knows no charges: that of the structure changes nothing, results are those of neutral ones."
    moments = atoms.get_initial_magnetic_moments()
    if not reads_magmoms and (moments != moments[:1]).any():  # alike they are what `ase.build.bulk` gives to nickel
        yield "the model knows no spins: that the initial magnetic moments differ changes nothing."
    elif not reads_magmoms and moments.any() and not atoms.pbc.any():  # as `ase.build.molecule` has them for O2
        yield (
            "the model knows no spins: the initial magnetic moments change nothing, results are those of the spin "
            "states it was trained on."
        )
