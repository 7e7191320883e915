"""Mutation testing: a random sample of small faults, made by cosmic-ray's operators, and whether a test notices each.

    # the sample of each area that `AREAS` names
    python -m benchmarks.correctness.mutation --seed 30 --out mutants.jsonl
    # the same again: what an interrupted run left
    python -m benchmarks.correctness.mutation --seed 30 --out mutants.jsonl
    python -m benchmarks.correctness.mutation --area mc --sample 60                 # one area
    # the survivors of a run, after new tests
    python -m benchmarks.correctness.mutation --again mutants.jsonl --out new.jsonl

Each fault is put into a forked process, in memory: no file is changed. Faults in functions get there after the tests
were collected, so that each costs what its tests cost; those in defaults and constants need an import of their own.
Annotations, decorators and what is raised are left alone. Hypothesis tries fewer examples than in the test suite.
Needs `cosmic-ray` beside the package; it is no dependency of the tests.
"""

import argparse
import ast
import gc
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import hypothesis
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ase_andersonn"
EXAMPLES = 15


class Area(NamedTuple):
    """Code that is changed, tests that have to notice, and how many faults are tried."""

    code: tuple[str, ...]
    tests: tuple[str, ...]
    sample: int


AREAS = {
    "calibration": Area(("training/classification/calibration.py",), ("tests/training/test_classification.py",), 15),
    "neighbors": Area(
        ("structures/neighbors.py",),
        ("tests/structures/test_neighbors.py", "tests/structures/test_neighbor_list.py"),
        25,
    ),
    "solvers": Area(("solvers/*.py",), ("tests/solvers", "tests/nn/test_equilibrium_cell.py"), 55),
    "mc": Area(
        ("mc/*.py", "mc/moves/*.py"),
        (
            "tests/mc/test_exact_acceptance.py", "tests/mc/test_proposals.py", "tests/mc/test_metropolis.py",
            "tests/mc/test_local_energy.py", "tests/mc/test_mc_restart.py", "tests/mc/test_mc_statistics.py",
            "tests/mc/test_sublattice.py", "tests/mc/test_tempering.py", "tests/mc/test_detailed_balance.py",
        ),
        60,
    ),
    "engine": Area(
        (
            "engine/fused.py", "engine/energy_forces.py", "engine/encoding.py", "engine/equilibrium.py",
            "engine/functions.py", "engine/compiled.py", "engine/weight_gradients.py",
        ),
        (
            "tests/engine/test_energy_forces.py", "tests/engine/test_fused.py", "tests/engine/test_encoding.py",
            "tests/engine/test_encoding_gradients.py", "tests/engine/test_training_functions.py",
        ),
        60,
    ),
    "tiles": Area(("tiles/*.py",), ("tests/tiles",), 50),
}  # fmt: skip
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", "not compile"]
BINARY = "Add_Sub Sub_Add Mul_Div Div_Mul Mul_Add Pow_Mul FloorDiv_Div Mod_FloorDiv BitAnd_BitOr BitOr_BitAnd"
COMPARISON = "Eq_NotEq NotEq_Eq Lt_LtE Lt_Gt LtE_Lt LtE_Gt Gt_GtE Gt_Lt GtE_Gt GtE_Lt Is_IsNot IsNot_Is"
OTHERS = (
    "ReplaceUnaryOperator_USub_UAdd ReplaceUnaryOperator_Delete_Not ReplaceUnaryOperator_Delete_Invert AddNot "
    "ReplaceTrueWithFalse ReplaceFalseWithTrue ReplaceAndWithOr ReplaceOrWithAnd ReplaceBreakWithContinue "
    "ReplaceContinueWithBreak NumberReplacer ZeroIterationForLoop"
)
OPERATORS = [
    *(f"core/ReplaceBinaryOperator_{swap}" for swap in BINARY.split()),
    *(f"core/ReplaceComparisonOperator_{swap}" for swap in COMPARISON.split()),
    *(f"core/{name}" for name in OTHERS.split()),
]
Mutant = dict[str, Any]


def left_alone(source: str) -> Callable[[tuple[int, int]], bool]:
    """Whether a place, line and column, is in an annotation, a decorator or what is raised."""
    nodes: list[ast.AST | None] = []
    for node in ast.walk(ast.parse(source)):
        nodes += [node] if isinstance(node, ast.Raise) else []
        nodes += [node.annotation] if isinstance(node, ast.arg | ast.AnnAssign) else []
        nodes += [node.returns] if isinstance(node, ast.FunctionDef) else []
        nodes += getattr(node, "decorator_list", [])
    spans = [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in nodes if n is not None]  # type: ignore[attr-defined]
    return lambda place: any(begin <= place < end for begin, end in spans)


def mutants(path: Path) -> list[list[Mutant]]:
    """All faults of a file, those of one place together."""
    source = path.read_text()
    skip, tree = left_alone(source), get_ast(source)
    found: dict[tuple[int, int], list[Mutant]] = {}
    for name in OPERATORS:
        places = [place for node in ast_nodes(tree) for place in get_operator(name)().mutation_positions(node)]
        for occurrence, (start, _) in enumerate(places):
            mutant = {"file": str(path.relative_to(ROOT)), "operator": name, "occurrence": occurrence, "line": start[0]}
            if not skip(start):
                found.setdefault(start, []).append(mutant)
    return [options for _, options in sorted(found.items())]


def mutated(mutant: Mutant) -> tuple[str, str]:
    """The source with the fault, and the line that has it."""
    source = (ROOT / mutant["file"]).read_text()
    changed = mutate_code(source, get_operator(mutant["operator"])(), mutant["occurrence"])
    lines = zip(source.splitlines(), changed.splitlines(), strict=False)
    return changed, next((f"{old.strip()}  ->  {new.strip()}" for old, new in lines if old != new), "")


def compiles(mutant: Mutant) -> bool:
    """Whether the fault is still Python; some of cosmic-ray's are not."""
    try:
        compile(mutated(mutant)[0], mutant["file"], "exec")
    except SyntaxError:
        return False
    return True


def module_of(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def functions_in(code: CodeType) -> Iterator[CodeType]:
    """Functions of a module and methods of its classes, as code; what is within them goes with them."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            is_class = not inner.co_flags & 0x02  # CO_NEWLOCALS
            yield from functions_in(inner) if is_class else (inner,)


def changed_functions(file: str, source: str) -> dict[tuple[str, int], CodeType] | None:
    """New code of the functions that the fault is in, by name and line; None where it is in none."""
    before, after = (
        {
            (code.co_qualname, code.co_firstlineno): code
            for code in functions_in(compile(text, str(ROOT / file), "exec"))
        }
        for text in ((ROOT / file).read_text(), source)
    )
    return {key: code for key, code in after.items() if before.get(key) != code} or None


def patch(file: str, new: dict[tuple[str, int], CodeType]) -> None:
    """Put the fault into the functions that are there."""
    for function in [one for one in gc.get_objects() if isinstance(one, FunctionType)]:
        code = function.__code__
        if code.co_filename == str(ROOT / file) and (code.co_qualname, code.co_firstlineno) in new:
            function.__code__ = new[code.co_qualname, code.co_firstlineno]


class Importer(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives a module its faulty source."""

    def __init__(self, file: str, source: str) -> None:
        self.file, self.source = ROOT / file, source
        self.name = module_of(file)

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:  # noqa: ARG002
        if fullname != self.name:
            return None
        inside = [str(self.file.parent)] if self.file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, self.file, loader=self, submodule_search_locations=inside
        )

    def get_source(self, fullname: str) -> str:  # noqa: ARG002
        return self.source

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return compile(self.source, str(self.file), "exec", dont_inherit=True)


class Noticed:
    """The first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.name = self.name or (report.nodeid if report.failed else "")

    def pytest_collectreport(self, report: Any) -> None:
        self.name = self.name or (f"{report.nodeid} (collection)" if report.failed else "")


def in_a_fork(run: Callable[[], str], timeout: float) -> str:
    """What the function returns in a forked process: the name of the test that noticed, or nothing."""
    begin, (read, write) = time.monotonic(), os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(null, stream)
        name = "process ended"
        try:
            name = run()
        finally:
            os.write(write, f"{name or '-'}".encode())
            os._exit(0)
    os.close(write)
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() - begin > timeout:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.02)
    said = os.read(read, 10_000).decode()
    os.close(read)
    return {"": "timeout or crash", "-": ""}.get(said, said)


class Session:
    """Collects the tests of an area, and then runs them for each fault in a process of its own."""

    def __init__(self, todo: list[Mutant], record: Callable[[Mutant, str], None], timeout: float) -> None:
        self.todo, self.record, self.timeout = todo, record, timeout

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        def run() -> str:
            patch(mutant["file"], new)
            noticed = Noticed()
            session.config.pluginmanager.register(noticed)
            for item, following in zip(session.items, [*session.items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if noticed.name:
                    break
            return noticed.name

        for mutant in self.todo:
            new = changed_functions(mutant["file"], mutated(mutant)[0]) or {}
            self.record(mutant, in_a_fork(run, self.timeout))
        return True


def attempt_all(area: Area, chosen: list[Mutant], record: Callable[[Mutant, str], None], timeout: float) -> None:
    """Try the faults of one area."""
    inside: list[Mutant] = []
    for mutant in chosen:
        source = mutated(mutant)[0]
        if changed_functions(mutant["file"], source):
            inside.append(mutant)
            continue

        def run(file: str = mutant["file"], source: str = source) -> str:
            sys.meta_path.insert(0, Importer(file, source))
            noticed = Noticed()
            code = pytest.main([*OPTIONS, *area.tests], plugins=[noticed])
            return noticed.name or ("" if code == 0 else f"exit status {code}")

        record(mutant, in_a_fork(run, timeout))

    def collect() -> str:
        pytest.main([*OPTIONS, *area.tests], plugins=[Session(inside, record, timeout)])
        return ""

    in_a_fork(collect, timeout * len(chosen) + timeout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area", choices=AREAS, action="append")
    parser.add_argument("--sample", type=int, help="faults of each area; by default as many as `AREAS` says")
    parser.add_argument("--seed", type=int, default=30)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds; one that takes longer counts as noticed")
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--again", type=Path, help="try the survivors in this file, with another --out")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    register = hypothesis.settings.register_profile
    few = staticmethod(lambda *a, **k: register(*a, **{**k, "max_examples": EXAMPLES}))
    type.__setattr__(hypothesis.settings, "register_profile", few)  # the class refuses to be changed otherwise
    for name in ("ase.io", "scipy.spatial", "torch", "torch_geometric"):  # imported once, not for each fault
        importlib.import_module(name)

    again = [json.loads(line) for line in arguments.again.read_text().splitlines()] if arguments.again else []
    known = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = [(one["file"], one["operator"], one["occurrence"]) for one in known]
    with arguments.out.open("a") as out:

        def record(mutant: Mutant, by: str) -> None:
            keys = ("file", "operator", "occurrence", "line")
            found = {**{key: mutant[key] for key in keys}, "change": mutated(mutant)[1], "by": by}
            print(json.dumps(found), file=out, flush=True)
            if not by:
                print(f"survived: {found['file']}:{found['line']}: {found['change']}", flush=True)

        for name in arguments.area or AREAS:
            area = AREAS[name]
            files = [file for pattern in area.code for file in sorted(PACKAGE.glob(pattern))]
            if arguments.again:
                among = {str(file.relative_to(ROOT)) for file in files}
                chosen = [mutant for mutant in again if not mutant["by"] and mutant["file"] in among]
            else:
                rng, places = random.Random(arguments.seed), [options for file in files for options in mutants(file)]
                chosen = [
                    rng.choice(options)
                    for options in rng.sample(places, min(arguments.sample or area.sample, len(places)))
                ]
            keys = [(one["file"], one["operator"], one["occurrence"]) for one in chosen]
            chosen = [one for one, key in zip(chosen, keys, strict=True) if key not in done and compiles(one)]
            attempt_all(area, sorted(chosen, key=lambda m: (m["file"], m["line"])), record, arguments.timeout)
    tried = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    print(f"{sum(bool(one['by']) for one in tried)} of {len(tried)} noticed")


if __name__ == "__main__":
    main()
