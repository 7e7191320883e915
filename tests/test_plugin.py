"""ASE finds the calculator: by its plugin system, by its table of calculators, and without paying for torch."""

import subprocess
import sys
from importlib.metadata import entry_points
from types import ModuleType

import pytest
from ase.calculators.calculator import get_calculator_class

import ase_andersonn
from ase_andersonn import plugin


def test_registered_by_name_and_more_than_once() -> None:
    assert plugin.register() is plugin.register()
    assert get_calculator_class("andersonn") is ase_andersonn.AndersoNN


def test_the_entry_point_is_installed() -> None:
    (entry,) = (entry for entry in entry_points(group="ase.plugins") if entry.name == "andersonn")
    assert entry.load() is plugin


def test_ase_lists_the_plugin_and_resolves_it() -> None:
    plugins = pytest.importorskip("ase._4.plugins").plugins
    (found,) = (entry for entry in plugins.calculators if entry.name == "andersonn")
    assert found.implementation is ase_andersonn.AndersoNN
    assert found.package == "ase_andersonn"
    assert found.version


@pytest.mark.parametrize("first", ["ase_andersonn.plugin", "ase._4.plugins"])
def test_ase_lists_the_plugin_whichever_is_imported_first(first: str) -> None:
    code = f"import {first}, ase._4.plugins as p; print([c.name for c in p.plugins.calculators])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "andersonn" in done.stdout


def test_a_change_of_the_experimental_interface_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ase._4.plugins.plugin", ModuleType("without_the_class"))
    assert plugin._ase_plugins() == set()
    monkeypatch.setitem(sys.modules, "ase._4.plugins.plugin", None)
    assert plugin._ase_plugins() == set()


def test_another_calculator_of_that_name_is_left_alone() -> None:
    code = (
        "from ase.calculators.calculator import external_calculators as known; known['andersonn'] = object\n"
        "from ase_andersonn import AndersoNN, plugin; print(plugin.register() is AndersoNN, known['andersonn'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True <class 'object'>"


def test_ase_knows_the_name_once_the_calculator_is_imported() -> None:
    code = (
        "from ase_andersonn import AndersoNN; from ase.calculators.calculator import get_calculator_class as get; "
        "print(get('andersonn') is AndersoNN)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_loading_the_plugin_does_not_load_torch() -> None:
    code = "import sys, ase_andersonn.plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_are_all_there() -> None:
    for name in ase_andersonn.__all__:
        assert getattr(ase_andersonn, name) is not None
        assert name in dir(ase_andersonn)


def test_an_unknown_public_name_is_an_error_that_lists_them() -> None:
    with pytest.raises(AttributeError, match="AndersoNN"):
        ase_andersonn.Anderson  # noqa: B018
