"""All checks of a set of labelled frames."""

from collections.abc import Sequence

from ase import Atoms

from ase_andersonn.structures.metadata import check_metadata
from ase_andersonn.training.data.labels import LabelKeys

from .energy_forces import check_energy_forces
from .energy_stress import check_energy_stress
from .net_force import check_net_forces
from .outliers import check_outliers
from .units import check_lengths_of, check_units


def check_frames(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> list[str]:
    """Warnings of what may be wrong with the frames or their labels.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: of the set, such as "validation ".

    Raises:
        ValueError: for lengths that cannot be in Å.
    """
    found = [*check_electronic_states(frames, kind), *check_lengths_of(frames, kind)]
    for check in (check_units, check_outliers, check_net_forces, check_energy_forces, check_energy_stress):
        found += check(frames, keys, kind)
    return found


def check_electronic_states(frames: Sequence[Atoms], kind: str = "") -> list[str]:
    """Warnings of charges and spins, which are no inputs of the model."""
    states = [check_metadata(atoms) for atoms in frames]
    found = []
    if charged := sum(abs(state.charge) > 0.5 for state in states):
        found.append(f"{charged} of {len(frames)} {kind}frames are charged, and the model knows no charges.")
    if spins := [state.spin_note for state in states if state.spin_note]:
        found.append(
            f"{len(spins)} of {len(frames)} {kind}frames name a spin, and the model knows no spins: {spins[0]} nothing."
        )
    return found


def check_shared(train: Sequence[Atoms], validation: Sequence[Atoms]) -> list[str]:
    """A warning of validation frames that are training frames, to the last bit of their positions."""

    def geometry(atoms: Atoms) -> bytes:
        return b"".join(array.tobytes() for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc))

    known = {geometry(atoms) for atoms in train}
    if shared := sum(geometry(atoms) in known for atoms in validation):
        return [
            f"{shared} of the {len(validation)} validation frames are training frames as well: errors on them say "
            "little of others."
        ]
    return []
