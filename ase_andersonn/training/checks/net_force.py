"""Do the forces of a frame balance? Those of an energy that knows no place sum to zero, and no atom's is left out."""

import logging
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from ase_andersonn.training.data.labels import LabelKeys, labels_of

logger = logging.getLogger(__name__)

HELD = 0.1
"""Share of atoms without any force, in frames of which others have some, that no symmetry is likely to give."""
MOVED = 0.05
"""eV/Å, root mean square forces from which a frame is not at rest."""
NET = 0.02
"""Net force on an atom over the root mean square force; those of plane-wave programs are a hundred times smaller."""


def check_net_forces(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> None:
    """Of forces that are exactly zero on many atoms, as where they were held, or that do not sum to zero.

    What a model cannot learn of net forces is their share in each atom, `|Σ F_i| / n_atoms`.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: what they are called, as "validation ".
    """
    forces = [labels_of(atoms, keys).forces for atoms in frames]
    moved = [f for f in forces if f is not None and np.square(f).mean() > MOVED**2]
    if not moved:
        return
    without = sum(int((~f.any(1)).sum()) for f in moved)
    n_atoms = sum(map(len, moved))
    if without > HELD * n_atoms:
        logger.warning(
            "%.3g %% of the atoms of %sframes that are not at rest have forces of exactly zero. If they were held, the "
            "model learns that nothing acts on them: read the forces without constraints "
            "(get_forces(apply_constraint=False)).",
            100.0 * without / n_atoms,
            kind,
        )
        return
    net = np.sqrt(np.mean([np.square(f.mean(0)).mean() for f in moved]))
    size = np.sqrt(np.mean([np.square(f).mean() for f in moved]))
    if net > NET * size:
        logger.warning(
            "forces of the %sframes do not sum to zero: of %.3g eV/Å (root mean square) %.3g remains on each atom, "
            "which no energy explains that is the same wherever a structure stands. Is there a field or a wall, or are "
            "forces of some atoms missing?",
            kind,
            size,
            net,
        )
