"""The neighbour attention in C++: what torch gives, first and second precision, and a library that is built once."""

import ctypes
import functools
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from small_models import small_model

from ase_andersonn import AndersoNN
from ase_andersonn.config import from_dict
from ase_andersonn.engine.compile_choice import KERNEL_SECONDS, CompileChoice
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.engine.functions import Functions
from ase_andersonn.engine.native import library
from ase_andersonn.engine.native.attention import AttentionKernel
from ase_andersonn.engine.native.functions import NativeFunctions
from ase_andersonn.engine.native.message_density import MessageDensityKernel
from ase_andersonn.engine.native.messages import NativeCellWeights
from ase_andersonn.engine.native.model import with_kernel
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.potentials.interface import Settings
from ase_andersonn.structures.graph import graph_from_atoms
from ase_andersonn.tiles import Tiles
from ase_andersonn.training.config import TrainConfig

pytestmark = pytest.mark.skipif(library.find_compiler() is None, reason="needs a C++ compiler")
TOLERANCE = {"float32": (1e-6, 1e-5), "float64": (1e-10, 1e-10)}
"""eV/atom and eV/Å, against torch in float64."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this module's own, in which the library is built."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("kernels")
        patch.setenv(library.CACHE, str(folder))
        library.load.cache_clear()
        library.build()
        yield folder
        library.load.cache_clear()


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    atoms.rattle(0.08, seed=seed)
    return atoms


def salt() -> Atoms:
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    del atoms[2]
    return atoms


CASES: dict[str, tuple[str, Atoms]] = {
    "silicon": ("mlearn-pbe", rattled(bulk("Si", cubic=True) * (2, 2, 1))),
    "copper, large": ("mlearn-pbe-large", rattled(bulk("Cu", cubic=True) * (2, 1, 1))),
    "ethanol": ("organic", rattled(molecule("CH3CH2OH"))),
    "salt with a vacancy": ("universal", salt()),
    "one atom": ("universal", Atoms("Fe")),
    "more atoms than are evaluated at once": ("mlearn-pbe", rattled(bulk("Si", cubic=True) * (4, 3, 3))),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_it_gives_what_torch_gives(case: str, dtype: str) -> None:
    name, atoms = CASES[case]
    exact = AndersoNN(name, dtype="float64", tol=1e-13, compile=False)
    found = AndersoNN(name, dtype=dtype, tol=1e-8 if dtype == "float32" else 1e-13, compile="native")
    energy, forces = TOLERANCE[dtype]
    expected = exact.get_forces(atoms)
    forces += 0.1 * forces * float(np.abs(expected).max())  # rounding is relative
    np.testing.assert_allclose(found.get_forces(atoms), expected, atol=forces)
    assert abs(found.get_potential_energy(atoms) - exact.get_potential_energy(atoms)) / len(atoms) < energy
    if atoms.pbc.all():
        np.testing.assert_allclose(found.get_stress(atoms), exact.get_stress(atoms), atol=forces)
    assert (exact.diagnostics["backend"], found.diagnostics["backend"]) == ("eager", "native")


@pytest.mark.parametrize(
    "sizes", [{}, {"l_max": 0}, {"l_max": 8, "separable": False}, {"n_edge": 6, "n_token": 10, "n_channels": 3}]
)
def test_sizes_that_fill_no_register(sizes: dict[str, Any]) -> None:
    """Outputs and gradients of any sizes, of random weights and cotangents, with padded and empty neighbourhoods."""
    torch.manual_seed(0)
    attention = small_model(**sizes).double().attention
    n_atoms, n_slots = 5, 7
    r = (0.5 + 4.0 * torch.rand(n_atoms, n_slots, dtype=torch.float64)).requires_grad_()
    unit = torch.nn.functional.normalize(torch.randn(n_atoms, n_slots, 3, dtype=torch.float64), dim=-1).requires_grad_()
    species = torch.randint(len(attention.center), (n_atoms,))
    near = torch.randint(len(attention.center), (n_atoms, n_slots))
    mask = torch.rand(n_atoms, n_slots) < 0.7
    mask[2] = False
    environment = attention.environment(r, unit, attention.pair_species(species, near), mask)
    gates = attention.message_gates(environment.token, environment.inside)
    n_token, n_heads = attention.angular.shape[1], attention.n_heads
    pooled, total, products = environment.features.split(
        [n_token, n_heads, attention.n_features - n_token - n_heads], -1
    )
    expected = (pooled, total.expm1(), products, gates)
    found = AttentionKernel(attention)(r, unit, species, near, mask)
    cotangents = [torch.randn_like(x) for x in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found, (r, unit), cotangents),
        torch.autograd.grad(expected, (r, unit), cotangents, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(one * mask.view(*mask.shape, *[1] * (one.ndim - 2)), other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("sizes", [{}, {"n_channels": 3}, {"n_channels": 17, "n_message": 4}])
@pytest.mark.parametrize("steps", [(1, 1), (9, 7)])
def test_picard_iterations(sizes: dict[str, int], steps: tuple[int, int]) -> None:
    """A fixed number gives what torch gives; with a tolerance, they go on until a step is as short."""
    model = small_model(**sizes)
    graph = graph_from_atoms([rattled(bulk("Si", cubic=True)), Atoms("Si")], model.cutoff, dtype=torch.float64)
    species = model.species(graph.numbers)
    injection = model.encode(graph.vectors, species, graph.neighbors, graph.mask)
    cell = NativeCellWeights(*model.cell_weights())
    rest = injection, graph.neighbors, graph.reverse, cell, species, None, steps
    expected = Functions(model).picard(injection.u, *rest)
    found = NativeFunctions(model).picard(injection.u, *rest)
    for name in ("z", "adjoint", "slope", "lagrangian", "norms"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-11, atol=1e-12)
    assert found.steps == steps
    exact = NativeFunctions(model).picard(injection.u, *rest, 1e-13)
    assert max(exact.steps) > max(steps)
    torch.testing.assert_close(cell.apply(exact.z, injection, graph.neighbors), exact.z, rtol=1e-11, atol=1e-12)
    left, size = exact.norms.sum(0)[[0, 2]], exact.norms.sum(0)[[1, 3]]
    assert bool((left <= 1e-26 * size).all())


def test_geometry_at_any_distance() -> None:
    """Distances, directions and pair energies with their gradients, from deep in the repulsion to the cutoff."""
    torch.manual_seed(0)
    model = small_model(cutoff_offset=2.5, cutoff_slope=0.6)
    model.max_density.fill_(0.5)
    n_species = len(model.elements)
    directions = torch.nn.functional.normalize(torch.randn(6, 9, 3, dtype=torch.float64), dim=-1)
    vectors = (directions * (0.2 + 3.5 * torch.rand(6, 9, 1, dtype=torch.float64))).requires_grad_()
    species, near = torch.randint(n_species, (6,)), torch.randint(n_species, (6, 9))
    mask = torch.rand(6, 9) < 0.8
    inputs = Neighborhoods(vectors, species, near, mask)
    kernels = with_kernel(model, torch.device("cpu"))
    assert isinstance(kernels, DEQAttention)
    for one, other in (
        (kernels.clamped_edges(inputs), model.clamped_edges(inputs)),
        ((kernels.pair_energies(inputs),), (model.pair_energies(inputs),)),
    ):
        for found, expected in zip(one, other, strict=True):
            there = mask if found.ndim > 1 else torch.ones(len(found), dtype=torch.bool)
            torch.testing.assert_close(found[there], expected[there], rtol=1e-11, atol=1e-11)
            cotangent = torch.randn_like(expected[there])
            gradients = (
                torch.autograd.grad(x[there], vectors, cotangent, retain_graph=True)[0][mask] for x in (found, expected)
            )
            torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    assert float(model.pair_energies(inputs).detach().max()) > 10.0, "some are far inside the repulsion"


@pytest.mark.parametrize(
    "sizes",
    [{"n_pairs": 1, "n_bispectrum": 0}, {"n_pairs": 3, "n_bispectrum": 5, "l_max": 4}, {"l_max": 1, "n_message": 3}],
)
def test_densities_of_messages(sizes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = small_model(**{"n_message": 7, **sizes}).message_density
    r = (0.5 + 4.0 * torch.rand(5, 7, dtype=torch.float64)).requires_grad_()
    unit = torch.nn.functional.normalize(torch.randn(5, 7, 3, dtype=torch.float64), dim=-1).requires_grad_()
    messages = torch.randn(5, 7, layer.value.weight.shape[1], dtype=torch.float64, requires_grad=True)
    mask = torch.rand(5, 7) < 0.7
    (found,), expected = MessageDensityKernel(layer)(r, unit, messages, mask), layer(r, unit, messages, mask)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    cotangent = torch.randn_like(expected)
    gradients = (torch.autograd.grad(x, (r, unit, messages), cotangent) for x in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one[mask], other[mask], rtol=1e-9, atol=1e-11)


def test_threads_change_nothing() -> None:
    atoms = CASES["more atoms than are evaluated at once"][1]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(
                AndersoNN("mlearn-pbe", compile="native", dtype="float64", warm_start=False, tol=1e-12).get_forces(
                    atoms
                )
            )
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found[0], found[1], atol=1e-12)


def test_changed_weights_are_noticed() -> None:
    calc, atoms = AndersoNN("mlearn-pbe", compile="native", dtype="float64"), CASES["silicon"][1]
    before = calc.get_potential_energy(atoms)
    with torch.no_grad():
        calc.model.attention.radial.weight.mul_(1.01)
    calc.reset()
    after = calc.get_potential_energy(atoms)
    assert after != before
    assert after == pytest.approx(AndersoNN(calc.model, dtype="float64").get_potential_energy(atoms), abs=1e-5)


def test_what_has_no_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="'native', of which a DEQCartesian on cpu has no kernels"):
        AndersoNN(small_model(rank=1), compile="native")


def test_gradients_of_weights_are_refused() -> None:
    """The kernels have none: an energy whose gradients in the weights are zero must not be given."""
    model = small_model().requires_grad_()
    graph = graph_from_atoms([rattled(bulk("Si", cubic=True))], model.cutoff, dtype=torch.float64)
    with pytest.raises(ValueError, match="no gradients of the weights"):
        evaluate(model, graph, forces=True, compile="native")
    with torch.no_grad():
        without = evaluate(model, graph, forces=True, compile="native")
    torch.testing.assert_close(without.energy, evaluate(model, graph).energy.detach())
    with pytest.raises(TypeError, match="compile = 'native'"):
        from_dict(TrainConfig, {"train": ["a.xyz"], "output": "run", "compile": "native"})


@pytest.mark.parametrize("sizes", [{"rank": 1}, {"n_heads": 72, "n_edge": 72, "n_token": 72}])
def test_evaluate_refuses_what_has_no_kernel(sizes: dict[str, int]) -> None:
    model = small_model(**sizes)
    graph = graph_from_atoms([rattled(bulk("Si", cubic=True))], model.cutoff, dtype=torch.float64)
    with pytest.raises(ValueError, match="has no kernels"):
        evaluate(model, graph, compile="native")


def test_precisions_do_not_share_weights() -> None:
    attention = small_model().attention
    kernel = AttentionKernel(attention.float())
    one = kernel.weights(torch.float32)
    assert kernel.weights(torch.float32) is one
    assert kernel.weights(torch.float64) is not one


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a user of a container that its password file does not list: slower, and no error."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in (library.CACHE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(library.Path, "home", nowhere)
    assert not library.is_built()
    calc = AndersoNN("mlearn-pbe")
    calc.get_forces(CASES["silicon"][1])
    assert calc.diagnostics["backend"] == "eager"
    with pytest.raises(RuntimeError, match=f"no home directory .* set {library.CACHE}"):
        AndersoNN("mlearn-pbe", compile="native")


def test_a_build_in_the_background_that_fails_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such instruction >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv(library.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setattr(library, "build_in_background", functools.cache(library.start_build))
    choices = [CompileChoice(small_model(), Settings(torch.device("cpu"), torch.float64)) for _ in range(2)]
    assert choices[0].mode(KERNEL_SECONDS + 1) is False
    process = library.build_in_background()
    assert process is not None
    process.wait()
    assert [choice.mode(KERNEL_SECONDS + 1) for choice in choices * 2] == [False] * 4
    assert [record.getMessage().count("no such instruction") for record in caplog.records] == [1]


def test_a_worker_without_kernels_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that a calculator with kernels sends to a machine without a compiler are solved there all the same."""
    atoms = CASES["more atoms than are evaluated at once"][1]
    calc = AndersoNN("mlearn-pbe", tiles=Tiles(6.0), dtype="float64")
    expected = calc.get_forces(atoms)
    assert calc.diagnostics["backend"] == "native"
    monkeypatch.setattr(library, "can_use", lambda: False)
    calc.reset()
    np.testing.assert_allclose(calc.get_forces(atoms), expected, atol=1e-8)
    assert calc.diagnostics["backend"] == "eager"


def _build(folder: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.CACHE, folder)
        library.build()


def test_two_processes_build_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=_build, args=(str(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    monkeypatch.setenv(library.CACHE, str(tmp_path))
    assert library.is_built()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".sha256", ".so"], "and leave nothing else"


def test_a_damaged_library_is_none(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = library.library_path()
    monkeypatch.setenv(library.CACHE, str(tmp_path))
    assert not library.is_built()
    bad = library.library_path()
    data = bytearray(good.read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes(data)
    bad.with_suffix(".sha256").write_text(good.with_suffix(".sha256").read_text())
    assert not library.is_built()
    library.build()
    assert library.is_built()
    assert ctypes.CDLL(str(bad))


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for it is an error; unasked it only costs time."""
    monkeypatch.setenv(library.CACHE, str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler found"):
        AndersoNN("mlearn-pbe", compile="native")
    calc = AndersoNN("mlearn-pbe")
    calc.get_forces(CASES["silicon"][1])
    assert calc.diagnostics["backend"] == "eager"


def test_auto_uses_what_is_built() -> None:
    calc = AndersoNN("mlearn-pbe")
    calc.get_forces(CASES["silicon"][1])
    assert calc.diagnostics["backend"] == "native"
