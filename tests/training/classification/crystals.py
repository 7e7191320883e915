"""Labelled crystals and the config of a small graph classifier."""

import numpy as np
from ase import Atoms
from ase.build import bulk

SMALL = {
    "cutoff": 3.5, "n_radial": 4, "l_max": 1, "n_channels": 8, "n_element": 8, "n_edge": 8, "n_token": 8, "n_heads": 2,
    "n_hidden": 16, "n_pooled": 8, "n_features": 8,
}  # fmt: skip
SALTS = ("NaCl", "KBr", "MgO", "LiF", "CaO", "NaBr")
METALS = ("Cu", "Ni", "Al", "Ag", "Pt", "Au", "Pd", "Rh")


def crystals(n: int = 24, seed: int = 0) -> list[Atoms]:
    """Metals without a gap, salts with one that falls with the lattice constant."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        a = rng.uniform(4.0, 6.0)
        if k % 2:
            atoms = bulk(SALTS[k % len(SALTS)], "rocksalt", a)
            atoms.info["value"] = round(10.0 - 1.5 * a, 3)
        else:
            atoms = bulk(METALS[k % len(METALS)], "fcc", a)
            atoms.info["value"] = 0.0
        found.append(atoms)
    return found
