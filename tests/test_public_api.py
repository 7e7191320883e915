"""The public names of the package: this list, no other; each is documented, and importing the package stays quick."""

import inspect
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

PUBLIC = {
    "ase_andersonn": "AndersoNN StructureClassifier MetropolisMC load_model save_model",
    "ase_andersonn.potentials": (
        "EnergyModel Potential Committee DEQAttention DEQAttentionConfig DEQCartesian DEQCartesianConfig"
    ),
    "ase_andersonn.engine": "evaluate Evaluation SolveOptions",
    "ase_andersonn.solvers": ("Solver Anderson Picard Broyden solve solve_linear gmres fixed_point Segments Solution"),
    "ase_andersonn.tiles": "Tiles TiledEvaluator context_for choose_tiles",
    "ase_andersonn.mc": (
        "Blocking CellChange Displacement EnergyMismatchError Estimate Exchange LocalEnergy ManyLocalEnergies "
        "MetropolisMC Move MoveRecord ParallelTempering SpeciesSwap SpinFlip Sublattice Transmutation Trial "
        "VolumeChange autocorrelation estimate integrated_autocorrelation_time thermal_wavelength"
    ),
    "ase_andersonn.training": "TrainConfig train train_committee evaluate_dataset read_frames",
    "ase_andersonn.training.classification": "ClassifierTrainConfig train_classifier",
    "ase_andersonn.testing": "check_calculator check_energy_model",
}
LAZY = {"ase_andersonn", "ase_andersonn.engine", "ase_andersonn.potentials", "ase_andersonn.training"}
"""Packages that load neither torch nor ASE by themselves."""


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_those_of_the_list(module: str) -> None:
    assert sorted(import_module(module).__all__) == sorted(PUBLIC[module].split())


@pytest.mark.parametrize(("module", "name"), [(m, name) for m, names in PUBLIC.items() for name in names.split()])
def test_every_public_name_is_documented(module: str, name: str) -> None:
    value: Any = getattr(import_module(module), name)
    text = inspect.getdoc(value) or ""
    assert text.strip(), f"{module}.{name} has no docstring"
    assert not text.startswith(f"{name}("), f"{module}.{name} has the docstring that dataclass makes"


def test_a_package_says_which_names_it_has() -> None:
    for module in PUBLIC:
        with pytest.raises(AttributeError, match="nothing"):
            _ = import_module(module).nothing


def test_former_names_are_still_found() -> None:
    former = {
        "ase_andersonn.training": "LabelKeys Trainer error_text parity_plot check_names EvaluationReport",
        "ase_andersonn.training.classification": "ClassifierTrainer class_metrics train_ensemble",
        "ase_andersonn.solvers": "Counters Predictor Safeguards",
        "ase_andersonn.tiles": "available_memory decay estimate_memory",
    }
    for module, names in former.items():
        package: Any = import_module(module)
        for name in names.split():
            vars(package).pop(name, None)
            with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} is called .*\.{name} now"):
                assert getattr(package, name).__name__ == name


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = f"import sys; [__import__(m) for m in {sorted(LAZY)}]; print({{'torch', 'ase', 'yaml'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
