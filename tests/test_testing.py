"""The conformance checks: calculators of ASE pass, and each way of breaking the contract is found."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential

from ase_andersonn.testing import check_calculator
from ase_andersonn.testing.calculators import ConformanceError, check_forces, check_results, check_stress


def rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.05, seed=0)
    return atoms


def copper() -> Atoms:
    return rattled(bulk("Cu", cubic=True))


@pytest.mark.parametrize(
    ("calc", "atoms"),
    [
        (EMT(), copper()),
        (EMT(), rattled(fcc111("Cu", (2, 2, 2), vacuum=6.0))),
        (EMT(), rattled(molecule("H2O"))),
        (LennardJones(rc=4.0, smooth=True), rattled(bulk("Ar", "fcc", a=1.6, cubic=True))),
        (MorsePotential(), rattled(molecule("N2"))),
    ],
    ids=["bulk", "slab", "molecule", "lennard-jones", "morse"],
)
def test_calculators_of_ase_pass(calc: Calculator, atoms: Atoms) -> None:
    check_calculator(calc, atoms, skip={"copies"} if isinstance(calc, EMT) else ())  # EMT keeps a lambda


def test_skipping_what_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"skip names \['copy'\]; the checks are \['results', "):
        check_calculator(EMT(), copper(), skip={"copy"})


class Spring(Calculator):
    """Every atom tied to its place in the lattice, and to the volume; `flaw` names what is wrong with it."""

    implemented_properties = ("energy", "forces", "stress", "energies")

    def __init__(self, flaw: str = "") -> None:
        super().__init__()
        self.flaw, self.calls = flaw, 0
        self.unpicklable = (lambda: None) if flaw == "pickle" else None

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = ()) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        self.calls += 1
        place = self.atoms.get_scaled_positions(wrap=False)
        away = place - np.round(2 * place) / 2
        volume = self.atoms.get_volume()
        energies = 50.0 * (away**2).sum(1) + (volume - 40.0) ** 2 / len(place)
        forces = -100.0 * away @ np.linalg.inv(self.atoms.cell.array).T
        pull = 2 * (volume - 40.0)
        self.results = {
            "energy": float(energies.sum()),
            "energies": energies,
            "forces": forces,
            "stress": pull * np.array([1.0, 1, 1, 0, 0, 0]),
        }
        self.break_something(atoms)

    def break_something(self, atoms: Atoms) -> None:
        results: dict[str, Any] = self.results
        if self.flaw == "type":
            results["energy"] = np.array([results["energy"]])
        elif self.flaw == "shape":
            results["stress"] = np.zeros((3, 3))
        elif self.flaw == "dtype":
            results["forces"] = results["forces"].astype(np.float32)
        elif self.flaw == "nan":
            results["forces"][0, 0] = np.nan
        elif self.flaw == "name":
            results["iterations"] = 3
        elif self.flaw == "forces":
            results["forces"] *= 1.01
        elif self.flaw == "stress":
            results["stress"][3] += 0.1
        elif self.flaw == "sum":
            results["energies"] = results["energies"] + 1.0
        elif self.flaw == "write":
            atoms.info["calls"] = self.calls
        elif self.flaw == "drift":
            results["energy"] += 1e-3 * self.calls
        elif self.flaw == "refuse":
            raise PropertyNotImplementedError("no")


SPRING_ATOMS = copper()


def test_a_calculator_without_flaw_passes() -> None:
    check_calculator(Spring(), SPRING_ATOMS, repeat=0.0)


@pytest.mark.parametrize(
    ("flaw", "text"),
    [
        ("type", "energy is a ndarray, not a float"),
        ("shape", "stress has shape"),
        ("dtype", "forces has the dtype float32"),
        ("nan", "forces is not finite"),
        ("name", "export_properties.. refuses the results: KeyError"),
        ("forces", "forces differ from finite differences by 9.9e-03"),
        ("stress", "stress differs from finite differences"),
        ("sum", "sum of energies differs from energy by 4.0e.00"),
        ("write", "changed the structure it was given"),
        ("drift", "energy differ by .* after another structure was computed"),
        ("refuse", "energy is listed as implemented, but refused: no"),
        ("pickle", "copies: .*pickle"),
    ],
)
def test_a_flaw_is_found(flaw: str, text: str) -> None:
    with pytest.raises(ConformanceError, match=text):
        check_calculator(Spring(flaw), SPRING_ATOMS)


def test_all_failures_are_listed() -> None:
    class Hopeless(Spring):
        def break_something(self, atoms: Atoms) -> None:
            self.results["forces"] *= 2.0
            self.results["stress"] = np.zeros(6)

    with pytest.raises(ConformanceError, match=r"Hopeless failed 3 checks:\n- forces: .*\n- stress: .*\n- copies: "):
        check_calculator(Hopeless(), SPRING_ATOMS)


def test_a_check_by_itself() -> None:
    check_results(Spring("forces"), SPRING_ATOMS)
    check_stress(Spring("forces"), SPRING_ATOMS)
    with pytest.raises(ConformanceError, match="forces differ"):
        check_forces(Spring("forces"), SPRING_ATOMS, indices=[1])
    check_forces(Spring("forces"), SPRING_ATOMS, indices=[1], tol=0.02)


def test_results_that_are_shared_with_the_caller_are_found() -> None:
    class Sharing(Spring):
        def get_property(self, name: str, atoms: Any = None, allow_calculation: bool = True) -> Any:
            super().get_property(name, atoms, allow_calculation)
            return self.results[name]

    with pytest.raises(ConformanceError, match="writing into the"):
        check_calculator(Sharing(), SPRING_ATOMS)
