"""Options of the calculator: values that are refused, and NumPy's numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from small_models import ethanol, small_calculator, small_model

from ase_andersonn import AndersoNN

NAN, INF = float("nan"), float("inf")


def test_settings_are_not_changed_silently() -> None:
    calc = small_calculator()
    with pytest.raises(ValueError, match="tol cannot be changed; create a new AndersoNN"):
        calc.set(tol=1e-3)
    assert calc.parameters["tol"] == 1e-16
    assert calc.set() == {}
    by_torch_dtype: Any = torch.float64
    assert small_calculator(dtype=by_torch_dtype).todict() == calc.todict()  # ASE writes it into trajectories, as JSON


@pytest.mark.parametrize("tol", [0.0, -1.0, NAN, INF, 10**400, "1e-6", True])
def test_tolerances_that_make_no_sense(tol: float) -> None:
    with pytest.raises(ValueError, match="it is an energy tolerance in eV/atom and has to be positive"):
        small_calculator(tol=tol)


OPTIONS = [
    ("device", "tpu"),
    ("dtype", "float16"),
    ("skin", -0.1),
    ("skin", "0.5"),
    ("skin", INF),
    ("skin", True),
    ("compile", "yes"),
    ("warm_start", "no"),
]


def test_batches_that_make_no_sense() -> None:
    calc = small_calculator()
    with pytest.raises(TypeError, match=r"evaluate\(\) takes a list of structures; for one, \[atoms\]"):
        calc.evaluate(ethanol())
    for wrong in (0, NAN, "100"):
        with pytest.raises(ValueError, match=f"batch_atoms is {wrong!r}; it has to be a finite number, at least 1"):
            calc.evaluate([ethanol()], batch_atoms=wrong)


def test_numbers_of_numpy_are_numbers() -> None:
    calc = small_calculator(tol=np.float32(1e-4), skin=np.int64(1), warm_start=np.bool_(False), compile=np.bool_(False))
    assert (calc.evaluator.settings.skin, calc.evaluator.settings.warm_start) == (1.0, False)
    assert calc.parameters["tol"] == pytest.approx(1e-4)
    assert type(calc.parameters["tol"]) is float


@pytest.mark.parametrize(("option", "value"), OPTIONS)
def test_options_that_make_no_sense(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{option}.* {value!r}|^{option} is {value}"):
        small_calculator(**{option: value})


@pytest.mark.parametrize("pbc", [True, (True, True, False), (False, False, True)])
def test_a_cell_far_too_small_is_an_error_at_once(pbc: Any) -> None:
    atoms = Atoms("Si", cell=[1e-5, 1e-5, 1e-5] if pbc is not True else [0.05, 0.05, 0.05], pbc=pbc)
    with pytest.raises(ValueError, match="the cell is too small: its heights are"):
        small_calculator().get_potential_energy(atoms)


def test_how_to_compile_is_checked_at_once() -> None:
    with pytest.raises(ValueError, match="compile is 'maybe'; use 'auto', 'native', True or False"):
        AndersoNN(small_model(), compile="maybe")  # type: ignore[arg-type]
