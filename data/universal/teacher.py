"""What labels structures: any ASE calculator by name, an AndersoNN file, or a TensorNet of MatGL in batches.

| name | |
|---|---|
| a folder with `model.json` | a potential of MatGL, TensorNet for one; needs `matgl==2.0.4` |
| a file | a model of this project |
| `emt`, `lj`, … | a calculator by ASE's name |
| `module:Class,key=value,…` | any calculator, as `nequix.calculator:NequixCalculator,model_path=nequix-oam-1.nqx` |

Other versions of MatGL load TensorNet's weights and give garbage without an error (3.0.5, 4.1.2), so a potential of
MatGL has to give rock salt's energy and pressure before it labels anything.
"""

import hashlib
import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, get_calculator_class
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa

MATGL = "2.0.4"
ROCK_SALT = 5.69
"""Å, NaCl in PBE."""
KNOWN = {
    "TensorNet-MatPES-PBE-v2025.1-PES": (-3.358, -0.11),
    "TensorNet-MatPES-r2SCAN-v2025.1-PES": (-6.846, 1.18),
}
"""Of potentials by the name of their folder: energy of NaCl at that lattice constant, eV an atom, and σ, GPa."""
LIKELY = 3.0
"""GPa: what any potential of about PBE's lattice constants stays below there."""


class Label(NamedTuple):
    """Energy, eV; forces [n_atoms, 3], eV/Å; stress [6], dE/dε / V, eV/Å³."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray


Labeller = Callable[[Sequence[Atoms]], Sequence[Label | None]]
"""Labels of structures; None where a calculator fails."""


class OneByOne:
    """Labels by any ASE calculator; where it fails for a structure that one has none."""

    def __init__(self, calculator: Calculator) -> None:
        self.calculator = calculator

    def __call__(self, frames: Sequence[Atoms]) -> list[Label | None]:
        return [self.label(atoms) for atoms in frames]

    def label(self, atoms: Atoms) -> Label | None:
        atoms = atoms.copy()
        self.calculator.reset()  # labels must not depend on what came before, by a neighbour list or a warm start
        atoms.calc = self.calculator
        try:
            return Label(float(atoms.get_potential_energy()), atoms.get_forces(), atoms.get_stress())
        except (ArithmeticError, RuntimeError, ValueError):  # unknown elements, atoms too near, no convergence
            return None


class InBatches(OneByOne):
    """Labels by a calculator of this project; one by one where a batch fails."""

    def __call__(self, frames: Sequence[Atoms]) -> list[Label | None]:
        try:
            found = self.calculator.evaluate(frames, forces=True, stress=True)
        except (ArithmeticError, RuntimeError, ValueError):
            return super().__call__(frames)
        return [Label(float(one["energy"]), one["forces"], one["stress"]) for one in found]


class MatGL:
    """Labels by a potential of MatGL, in batches; float32.

    Raises:
        ImportError: where `matgl` is missing, or a version without these parts.
    """

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("MATGL_BACKEND", "PYG")
        import matgl
        import torch
        from matgl.ext._ase_pyg import Atoms2Graph

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.potential = matgl.load_model(str(folder.resolve()))
        self.potential.eval().requires_grad_(False)
        self.converter = Atoms2Graph(self.potential.model.element_types, self.potential.model.cutoff)

    def __call__(self, frames: Sequence[Atoms]) -> list[Label | None]:
        import torch
        from torch_geometric.data import Batch

        graphs, lattices = [], []
        for atoms in frames:
            graph, lattice, _ = self.converter.get_graph(atoms)
            lattice = lattice.reshape(3, 3)
            graph.pbc_offshift, graph.pos = graph.pbc_offset @ lattice, graph.frac_coords @ lattice
            graphs.append(graph)
            lattices.append(lattice)
        energy, forces, stress = self.potential(Batch.from_data_list(graphs), torch.stack(lattices))[:3]
        energies, tensors = energy.detach().reshape(-1).tolist(), stress.detach().double().numpy().reshape(-1, 3, 3)
        ends = np.cumsum([len(atoms) for atoms in frames])[:-1]
        pieces = np.split(forces.detach().double().numpy(), ends)
        voigt = [full_3x3_to_voigt_6_stress((tensor + tensor.T) / 2 * GPa) for tensor in tensors]
        return [Label(*one) for one in zip(energies, pieces, voigt, strict=True)]


def load(name: str) -> Labeller:
    """The labeller that a name stands for, see above.

    Raises:
        ValueError: for a name that stands for nothing, and for a potential of MatGL that fails `check_rock_salt`.
    """
    path = Path(name)
    if (path / "model.json").is_file():
        try:
            teacher = MatGL(path)
        except ImportError as error:
            raise ValueError(f"{name} is a potential of MatGL ({error}): pip install matgl=={MATGL}") from error
        check_rock_salt(teacher, path.resolve().name)
        return teacher
    if path.is_file():
        name = f"ase_andersonn:AndersoNN,model={name}"
    made = calculator(name)
    return InBatches(made) if hasattr(made, "evaluate") else OneByOne(made)


def identity(name: str) -> str:
    """What tells a labeller from others: the last part of its name, and a hash of the files that it is read from."""
    path = Path(name)
    files = [path] if path.is_file() else sorted(one for one in path.glob("*") if one.is_file())
    digest = hashlib.sha256(b"".join(one.read_bytes() for one in files)).hexdigest()[:16] if files else ""
    return f"{path.resolve().name if files else name} {digest}".strip()


def calculator(name: str) -> Calculator:
    """An ASE calculator by ASE's name of it, or by `module:Class,key=value,…`.

    Raises:
        ValueError: where there is none of that name.
    """
    known, *settings = name.split(",")
    module, _, kind = known.partition(":")
    try:
        found = getattr(importlib.import_module(module), kind) if kind else get_calculator_class(known)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{known!r} is no folder of MatGL, no file, and no calculator ({error}); give a path, a name that "
            "ASE knows (emt), or module:Class,key=value."
        ) from error
    return found(**dict(_setting(text) for text in settings))


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def check_rock_salt(teacher: Labeller, name: str) -> None:
    """Refuse a potential that is wrong for NaCl, two cells in one batch.

    Raises:
        ValueError: where energy or stress are not what `KNOWN` says, or, of others, the stress is above `LIKELY`.
    """
    salt = bulk("NaCl", "rocksalt", a=ROCK_SALT)
    labels = teacher([salt, bulk("NaCl", "rocksalt", a=ROCK_SALT, cubic=True)])
    found = [(one.energy / n, float(one.stress[:3].mean()) / GPa) for one, n in zip(labels, (2, 8), strict=True) if one]
    energy, stress = KNOWN.get(name, (None, None))
    wrong = len(found) < 2 or abs(found[0][0] - found[1][0]) > 1e-3 or max(abs(sigma) for _, sigma in found) > LIKELY
    if energy is not None and not wrong:
        wrong = abs(found[0][0] - energy) > 2e-3 or abs(found[0][1] - stress) > 0.1
    if wrong:
        right = "a stress near zero" if energy is None else f"{energy} eV an atom and {stress} GPa"
        said = ", ".join(f"{e:.3f} eV an atom and {sigma:.2f} GPa" for e, sigma in found) or "nothing"
        raise ValueError(
            f"{name} gives NaCl at {ROCK_SALT} Å {said}; right is {right}. The version of MatGL may be wrong: "
            f"pip install matgl=={MATGL}"
        )
