"""The house: a file imports from its own floor or below, and no room imports what its row of the table forbids.

The check reads the syntax tree, so imports inside functions, under TYPE_CHECKING and by `import_module("...")` count as
well. What a room must never load from other projects is also held through the package's own modules: a Monte Carlo move
that imports a module that imports torch does import torch.
"""

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "ase_andersonn"
ROOT = Path(__file__).parents[1] / PACKAGE

FLOORS = {
    1: {"structures", "nn", "solvers", "pretrained", "properties", "config", "labels", "backends", "lazy"}
    | {"atomic_write", "batching", "checksum", "deprecated", "lock", "stop_signal", "thread_lock"},
    2: {"potentials", "classifiers", "mc"},
    3: {"engine", "lattice"},
    4: {"tiles", "checkpoints"},
    5: {"calculator", "evaluators", "classifier", "training"},
    6: {"workflows", "cli", "integrations", "plugin", "testing"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

NEVER = {
    "mc": {"torch", "potentials", "classifiers", "engine"},
    "solvers": {"ase", "pymatgen", "torch_geometric", "structures", "nn", "pretrained"},
    "structures": {"nn", "solvers"},
    "nn": {"ase", "pymatgen", "structures", "solvers", "pretrained"},
    "potentials": {"engine", "solvers"},
    "workflows": {"nn", "solvers", "training"},
}

NO_PROPERTY = {
    "torch",
    "phonopy",
    "pymatgen",
    "matplotlib",
    "potentials",
    "engine",
    "calculator",
    "classifier",
    "tiles",
}
"""What files of properties never load when they are imported."""


@dataclass(frozen=True)
class Import:
    """`importer` imports `imported` (both dotted modules); `typing_only` where it happens for annotations alone."""

    importer: str
    imported: str
    line: int
    typing_only: bool


def room(module: str) -> str | None:
    """The room of a module of the package; None for the package itself and for other projects."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def imports_of(module: str, source: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import in a source text, wherever it stands."""
    tree = ast.parse(source)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        for name in _imported_names(module, node, is_package):
            yield Import(module, name, getattr(node, "lineno", 0), id(node) in typing_only)


def _imported_names(module: str, node: ast.AST, is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = module.split(".") if is_package else module.split(".")[:-1]
            base = ".".join([*parents[: len(parents) + 1 - node.level], *([base] if base else [])])
        # `from package import room` names a module, `from package.room import thing` a thing: the longer serves both
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {"import_module", "__import__"}:
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return []


def read_package(root: Path) -> dict[str, list[Import]]:
    """Module name -> its imports."""
    package: dict[str, list[Import]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        package[module] = list(imports_of(module, path.read_text(encoding="utf-8"), is_package=is_package))
    return package


def violations(package: Mapping[str, list[Import]]) -> list[str]:
    """What breaks the house's rules, one text a violation; the package's own `__init__` may name what it likes."""
    strangers = [module for module in package if room(module) not in (*FLOOR, None)]
    found = [f"{module}: {room(module)!r} is no room; add it to a floor" for module in strangers]
    for module, imports in package.items():
        own = room(module)
        if own not in FLOOR:
            continue
        for entry in imports:
            found += _direct(own, entry)
        found += _through_own_modules(own, module, package)
    return sorted(set(found))


def _direct(own: str, entry: Import) -> list[str]:
    there = room(entry.imported)
    place = f"{entry.importer}, line {entry.line}"
    if there in NEVER.get(own, ()) or entry.imported.split(".")[0] in NEVER.get(own, ()):
        return [f"{place}: {own} never imports {there or entry.imported.split('.')[0]}"]
    if there in FLOOR and FLOOR[there] > FLOOR[own]:
        return [f"{place}: {own} (floor {FLOOR[own]}) imports {there} (floor {FLOOR[there]})"]
    return []


def _through_own_modules(own: str, module: str, package: Mapping[str, list[Import]]) -> list[str]:
    forbidden = NEVER.get(own, set()) - FLOOR.keys()
    seen, queue, found = {module}, [module], []
    while queue:
        for entry in package[queue.pop()]:
            if entry.typing_only:
                continue
            if (project := entry.imported.split(".")[0]) in forbidden and entry.importer != module:
                found.append(f"{module}: {own} never imports {project}, but {entry.importer} does")
            for loaded in _loaded_modules(entry.imported, package):
                if loaded not in seen:
                    seen.add(loaded)
                    queue.append(loaded)
    return found


def _loaded_modules(imported: str, package: Mapping[str, list[Import]]) -> list[str]:
    """The package's modules that importing a dotted name runs: the module and the packages around it."""
    parts = imported.split(".")
    names = [".".join(parts[:size]) for size in range(1, len(parts) + 1)]
    return [name for name in names if name in package and name != PACKAGE]


def room_cycles(package: Mapping[str, list[Import]]) -> list[str]:
    """Pairs of different rooms that import each other at run time."""
    edges = {
        (room(entry.importer), room(entry.imported))
        for imports in package.values()
        for entry in imports
        if not entry.typing_only and room(entry.importer) in FLOOR and room(entry.imported) in FLOOR
    }
    return sorted(f"{a} <-> {b}" for a, b in edges if a < b and (b, a) in edges)


def file_circles(package: Mapping[str, list[Import]]) -> list[list[str]]:
    """Strongly connected components of more than one file in the graph of run-time imports (Tarjan, 1972).

    Imports inside functions count. An import of `room.Thing` leads to the room's `__init__`, a file like the others.
    """
    graph = {
        module: {
            target
            for entry in imports
            if not entry.typing_only
            for target in _loaded_modules(entry.imported, package)[-1:]
            if target != module
        }
        for module, imports in package.items()
    }
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_files_do_not_import_each_other_in_circles() -> None:
    assert file_circles(read_package(ROOT)) == []


def test_a_circle_of_files_is_found() -> None:
    def entry(importer: str, imported: str, typing_only: bool = False) -> Import:
        return Import(f"{PACKAGE}.{importer}", f"{PACKAGE}.{imported}", 1, typing_only)

    package = {
        f"{PACKAGE}.nn.a": [entry("nn.a", "nn.b.Thing")],
        f"{PACKAGE}.nn.b": [entry("nn.b", "nn.c")],
        f"{PACKAGE}.nn.c": [entry("nn.c", "nn.a.Other"), entry("nn.c", "nn.d", typing_only=True)],
        f"{PACKAGE}.nn.d": [entry("nn.d", "nn.c")],
    }
    assert file_circles(package) == [[f"{PACKAGE}.nn.{name}" for name in "abc"]]


def test_package_keeps_the_rules() -> None:
    assert violations(read_package(ROOT)) == []


def test_rooms_do_not_import_each_other_in_circles() -> None:
    assert room_cycles(read_package(ROOT)) == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("solvers.base", "import ase", "solvers never imports ase"),
        ("solvers.base", "def f():\n    from ase.atoms import Atoms", "solvers never imports ase"),
        ("solvers.base", "from ase_andersonn.nn.blocks import silu", "solvers never imports nn"),
        ("solvers.base", "from ..structures import graph", "solvers never imports structures"),
        ("solvers", "from .. import structures", "solvers never imports structures"),
        ("nn.blocks", "if TYPE_CHECKING:\n    from ase import Atoms", "nn never imports ase"),
        ("nn.blocks", "import_module('ase_andersonn.engine.equilibrium')", "nn (floor 1) imports engine (floor 3)"),
        ("mc.moves", "import torch.nn.functional as F", "mc never imports torch"),
        ("mc.moves", "from ase_andersonn.backends import resolve_device", "mc never imports torch, but"),
        (
            "structures.graph",
            "from ase_andersonn import calculator",
            "structures (floor 1) imports calculator (floor 5)",
        ),
        ("tiles.auto", "from ase_andersonn.engine.evaluator import Whole", ""),
        ("workflows.md", "from ase_andersonn.training import trainer", "workflows never imports training"),
        ("calculator", "import ase_andersonn.workflows.md", "calculator (floor 5) imports workflows (floor 6)"),
        ("calculator", "from ase_andersonn.potentials.base import EnergyModel\nimport ase", ""),
        ("kitchen.sink", "", "'kitchen' is no room"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, module: str, source: str, message: str) -> None:
    root = tmp_path / PACKAGE
    path = root / Path(*module.split("."))
    path = path / "__init__.py" if module in {"solvers"} else path.with_suffix(".py")
    path.parent.mkdir(parents=True)
    path.write_text(source)
    (root / "backends.py").write_text("import torch\n")
    found = violations(read_package(root))
    assert (len(found) == 1 and message in found[0]) if message else found == []


def test_typing_imports_load_nothing() -> None:
    package = {
        "ase_andersonn.mc.moves": [Import("ase_andersonn.mc.moves", "ase_andersonn.properties.Field", 1, False)],
        "ase_andersonn.properties": [Import("ase_andersonn.properties", "torch", 1, True)],
    }
    assert violations(package) == []


def test_a_circle_of_rooms_is_found() -> None:
    there = Import("ase_andersonn.potentials.base", "ase_andersonn.tiles.evaluator", 1, False)
    back = Import("ase_andersonn.tiles.evaluator", "ase_andersonn.potentials.base", 1, False)
    assert room_cycles({"ase_andersonn.potentials.base": [there], "ase_andersonn.tiles.evaluator": [back]}) == [
        "potentials <-> tiles"
    ]


def test_properties_serve_any_calculator() -> None:
    paths = [
        path.relative_to(ROOT / "workflows").with_suffix("") for path in sorted((ROOT / "workflows").rglob("*.py"))
    ]
    files = [".".join(path.parts) for path in paths if path.name != "__init__" or len(path.parts) > 1]
    files = [file.removesuffix(".__init__") for file in files]
    package = read_package(ROOT)
    forbidden = NO_PROPERTY & FLOOR.keys()
    for file in files:
        rooms = {room(entry.imported) for entry in package.get(f"{PACKAGE}.workflows.{file}", ())}
        assert not rooms & forbidden, file
    modules = ", ".join(f"{PACKAGE}.workflows.{file}" for file in files)
    code = f"import sys, {modules}; print(sorted({NO_PROPERTY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'ase', 'numpy', 'torch_geometric', 'pymatgen', 'phonopy', 'matplotlib'}"
    code = f"import sys, ase_andersonn; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def lines_of(folder: str) -> dict[str, int]:
    files = sorted((ROOT.parent / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT.parent)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}


@pytest.mark.parametrize("folder", [PACKAGE, "tests", "benchmarks"])
def test_no_file_is_longer_than_350_lines(folder: str) -> None:
    assert {path: lines for path, lines in lines_of(folder).items() if lines > 350} == {}


def test_half_of_the_package_s_files_have_at_most_150_lines() -> None:
    assert statistics.median(lines_of(PACKAGE).values()) <= 150
