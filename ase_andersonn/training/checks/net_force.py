"""Net force of a frame: zero for the gradients of an energy that is invariant under translation."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from ase_andersonn.training.data.labels import LabelKeys, labels_of

MAX_ZERO_SHARE = 0.1
"""Share of atoms without any force, in frames where others have some, that symmetry may explain."""
RELAXED_FORCE = 0.05
"""eV/Å; frames with a smaller root mean square force are relaxed and not judged."""
MAX_NET_SHARE = 0.02
"""Net force on an atom over the root mean square force; plane-wave programs leave a hundredth of this."""


def check_net_forces(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> list[str]:
    """Warnings of forces that are exactly zero on many atoms, as on fixed ones, or that do not sum to zero.

    A model cannot learn the share of the net force in each atom, `|Σ F_i| / n_atoms`.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: of the set, such as "validation ".
    """
    forces = [labels_of(atoms, keys).forces for atoms in frames]
    moved = [f for f in forces if f is not None and np.square(f).mean() > RELAXED_FORCE**2]
    if not moved:
        return []
    zero_share = sum(int((~f.any(1)).sum()) for f in moved) / sum(map(len, moved))
    if zero_share > MAX_ZERO_SHARE:
        return [
            f"{100.0 * zero_share:.3g} % of the atoms of {kind}frames that are not relaxed have forces of exactly "
            "zero. If they were fixed, the model learns that no force acts on them: read the forces without "
            "constraints (get_forces(apply_constraint=False))."
        ]
    net = np.sqrt(np.mean([np.square(f.mean(0)).mean() for f in moved]))
    size = np.sqrt(np.mean([np.square(f).mean() for f in moved]))
    if net > MAX_NET_SHARE * size:
        return [
            f"forces of the {kind}frames do not sum to zero: of {size:.3g} eV/Å (root mean square) {net:.3g} remains "
            "on each atom, which no energy explains that is invariant under translation. Is there an external field "
            "or a wall, or are forces of some atoms missing?"
        ]
    return []
