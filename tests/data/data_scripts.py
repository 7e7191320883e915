"""Scripts of the `data` folder in tests."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

DATA = Path(__file__).parents[2] / "data"
MOLECULES = DATA / "dipoles" / "molecules.extxyz"
GEOMETRIES = DATA / "organic" / "geometries.extxyz"
FRAMEWORKS = DATA / "pores" / "frameworks.extxyz"


def missing(*modules: str) -> bool:
    return any(importlib.util.find_spec(name) is None for name in modules)


def load(path: Path) -> ModuleType:
    """A script of the data folder as a module."""
    spec = importlib.util.spec_from_file_location(f"data_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script: Path, *arguments: object) -> str:
    command = [sys.executable, str(script), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
