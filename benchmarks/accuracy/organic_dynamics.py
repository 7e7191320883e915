"""Molecular dynamics of several molecules at once: broken bonds, and errors of sampled frames."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from rdkit import Chem

from ase_andersonn import AndersoNN
from ase_andersonn.potentials.base import EnergyModel
from benchmarks.accuracy.organic_molecules import MAKE
from benchmarks.dynamics.stability import BROKEN, SAVE_SECONDS, Bonds

APART = 40.0
"""Å between the molecules in dynamics."""
TEMPERATURE, STEP = 300.0, 0.5 * units.fs
"""K; ASE's unit of time."""
EVERY = 200
"""Steps between two looks at the bonds."""
SAMPLE_PS = 1.0
"""Between two frames that are labelled."""


class Dynamics:
    """All molecules in one run, apart from one another; saved in a folder and gone on with."""

    def __init__(self, molecules: dict[str, Chem.Mol], model: EnergyModel, folder: Path) -> None:
        self.folder, self.names = folder, list(molecules)
        parts = [MAKE.as_atoms(molecule) for molecule in molecules.values()]
        self.slices = [slice(*ends) for ends in pairwise(np.cumsum([0, *map(len, parts)]))]
        self.bonds = [Bonds(part) for part in parts]
        none = [None] * len(parts)
        self.state: dict[str, Any] = {"steps": 0, "largest": [0.0] * len(parts), "broken_ps": none, "samples": []}
        if (folder / "state.json").exists():
            self.state = json.loads((folder / "state.json").read_text())
            self.atoms: Any = read(folder / "atoms.traj")
        else:
            self.atoms = Atoms()
            for k, part in enumerate(parts):
                part.translate([APART * k, 0.0, 0.0])
                self.atoms += part
            thermalize_momenta(self.atoms, TEMPERATURE, rng=np.random.default_rng(0))
        self.atoms.calc = AndersoNN(model)

    @property
    def ps(self) -> float:
        return float(self.state["steps"] * STEP / (1000 * units.fs))

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "atoms.traj", self.atoms)
        (self.folder / "state.json").write_text(json.dumps(self.state))

    def run(self, ps: float) -> None:
        """Until that time, or until all have broken a bond or the energy is not a number."""
        rng, saved = np.random.default_rng((0, self.state["steps"])), time.monotonic()
        kwargs: dict[str, Any] = {"temperature_K": TEMPERATURE, "friction": 0.01 / units.fs, "fixcm": False, "rng": rng}
        dynamics = Langevin(self.atoms, STEP, **kwargs)
        while self.ps < ps and None in self.state["broken_ps"]:
            dynamics.run(EVERY)
            self.state["steps"] += EVERY
            self._look()
            if not np.isfinite(self.atoms.get_potential_energy()):
                break
            if self.ps >= (len(self.state["samples"]) + 1) * SAMPLE_PS:
                self.state["samples"].append(self._sample())
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def _look(self) -> None:
        for k, (bonds, part) in enumerate(zip(self.bonds, self.slices, strict=True)):
            largest = float(np.fmax(self.state["largest"][k], bonds.change(self.atoms[part])))
            self.state["largest"][k] = largest
            if self.state["broken_ps"][k] is None and largest > BROKEN:
                self.state["broken_ps"][k] = self.ps

    def _sample(self) -> list[list[float]]:
        """Of each molecule the mean error of the force components, and the energy of GFN2-xTB and of the model, eV."""
        forces, own = self.atoms.get_forces(), self.atoms.get_potential_energies()
        found = []
        for part in self.slices:
            labelled = self.atoms[part]
            labelled.calc = MAKE.engine()
            error = float(np.abs(labelled.get_forces() - forces[part]).mean())
            found.append([error, float(labelled.get_potential_energy()), float(own[part].sum())])
        return found

    def summary(self) -> dict[str, Any]:
        """By molecule: the largest change of a bond, when it was too large, and the errors of the samples (MAE): of
        the forces, eV/Å, and of the energy about its mean, eV; None without samples."""
        samples = np.array(self.state["samples"]).reshape(-1, len(self.names), 3)
        found = {}
        for k, name in enumerate(self.names):
            forces, reference, ours = samples[:, k].T
            error = np.abs((ours - reference) - (ours - reference).mean()) if len(samples) else None
            found[name] = {
                "largest": self.state["largest"][k],
                "broken_ps": self.state["broken_ps"][k],
                "forces": None if error is None else float(forces.mean()),
                "energy": None if error is None else float(error.mean()),
            }
        return {"ps": self.ps, "samples": len(samples), "molecules": found}
