"""Networks on images of atoms: extensive, exact derivatives, and what remains of the egg-box effect."""

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from ase_andersonn import AndersoNN, load_model, save_model
from ase_andersonn.lattice.density_model import ImageConfig, ImageModel

SHAPE: dict[str, Any] = {"spacing": 0.5, "sigma": 0.5, "cutoff": 2.0, "focus": 2, "context": 2, "n_hidden": 6}
CONFIGS = {
    "solid": ImageConfig((6, 14), **SHAPE),
    "sheet": ImageConfig((6,), n_axes=2, **SHAPE),
    "convolutional": ImageConfig((6,), n_axes=2, **SHAPE, network="convolutional"),
    "equilibrium": ImageConfig((6,), n_axes=2, **SHAPE, network="equilibrium"),
}


def calculator(name: str = "solid", **changes: Any) -> AndersoNN:
    torch.manual_seed(0)
    config = CONFIGS[name]
    model = ImageModel(ImageConfig(**{**config.__dict__, **changes}))
    with torch.no_grad():
        model.atomic.normal_()
    return AndersoNN(model, dtype="float64", device="cpu")


def solid() -> Atoms:
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.set_cell(atoms.cell @ (np.eye(3) + 0.05 * np.eye(3, k=1)), scale_atoms=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def sheet(repeat: int = 2, pbc: Any = (True, True, False)) -> Atoms:
    atoms = graphene(size=(repeat, repeat, 1), vacuum=3.0)
    atoms.rattle(0.1, seed=1)
    atoms.pbc = pbc
    return atoms


def cluster() -> Atoms:
    atoms = Atoms("SiC2", [[0, 0, 0], [1.8, 0, 0], [0, 1.7, 0.4]])
    atoms.center(vacuum=2.5)
    return atoms


def ribbon() -> Atoms:
    atoms = sheet()
    atoms.set_cell([atoms.cell[0], atoms.cell[1] * 3, atoms.cell[2]])
    atoms.center(axis=1)
    atoms.pbc = (True, False, False)
    return atoms


STRUCTURES: dict[str, tuple[str, Any]] = {
    "solid": ("solid", solid),
    "cluster": ("solid", cluster),
    "sheet": ("sheet", sheet),
    "convolutional": ("convolutional", sheet),
    "equilibrium": ("equilibrium", sheet),
    "ribbon": ("sheet", ribbon),
}


@pytest.mark.parametrize("name", list(STRUCTURES))
@pytest.mark.parametrize("origins", [1, 2])
def test_forces_are_finite_differences(name: str, origins: int) -> None:
    kind, make = STRUCTURES[name]
    atoms = make()[:3] if kind == "solid" and name != "cluster" else make()
    atoms.calc = calculator(kind, origins=origins)
    chosen = [0] if name == "equilibrium" else [0, 1]
    numeric = calculate_numerical_forces(atoms, eps=1e-4, iatoms=chosen)
    np.testing.assert_allclose(atoms.get_forces()[chosen], numeric, atol=1e-7)


@pytest.mark.parametrize(("kind", "make"), [("solid", solid), ("sheet", lambda: sheet(pbc=True))])
def test_stress_is_the_finite_difference(kind: str, make: Any) -> None:
    atoms = make()
    atoms.calc = calculator(kind)
    numeric = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), numeric, atol=1e-8)


@pytest.mark.parametrize("name", ["solid", "sheet", "equilibrium"])
def test_energy_is_extensive(name: str) -> None:
    kind, make = STRUCTURES[name]
    atoms = make()
    atoms.set_cell(atoms.cell / atoms.cell.lengths()[:, None] * [[5.0], [5.0], [5.0]], scale_atoms=True)
    twice = atoms.repeat((2, 2, 1))
    calc = calculator(kind)
    assert calc.get_potential_energy(twice) == pytest.approx(4 * calc.get_potential_energy(atoms), rel=1e-10)


def test_a_shift_by_the_focus_changes_nothing() -> None:
    atoms, calc = solid(), calculator()
    energy = calc.get_potential_energy(atoms)
    pixels = calc.diagnostics["pixels"]
    atoms.positions += 2 / pixels[0] * atoms.cell[0] - 4 / pixels[1] * atoms.cell[1]
    assert calc.get_potential_energy(atoms) == pytest.approx(energy, rel=1e-10)
    atoms.wrap()
    assert calc.get_potential_energy(atoms) == pytest.approx(energy, rel=1e-10)
    atoms.positions += 1 / pixels[0] * atoms.cell[0]
    assert abs(calc.get_potential_energy(atoms) - energy) > 1e-6


def test_origins_average_the_egg_box_away() -> None:
    """The more places of the grid, the smaller net force and spread; half a focus is a pixel here."""
    atoms, rng = sheet(), np.random.default_rng(0)
    net, spread = [], []
    for origins in (1, 2, 4):
        calc = calculator("sheet", origins=origins)
        calc.get_forces(atoms)
        net.append(calc.diagnostics["net_force"])
        energies = [calc.get_potential_energy(shifted(atoms, rng.random(3))) for _ in range(6)]
        spread.append(np.ptp(energies))
        assert calc.diagnostics["origins"] == origins**2
    assert net[0] > 1e-4
    assert net[2] < net[0] / 20
    assert spread[2] < spread[0] / 20


def shifted(atoms: Atoms, by: Any) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += by @ atoms.cell
    return atoms


def test_training_at_random_origins() -> None:
    """A network that saw one origin fits it and is lost at others; one that saw all gives nearly one energy at each."""
    config = ImageConfig((6,), n_axes=2, spacing=0.5, sigma=0.25, cutoff=1.25, focus=4, context=2, n_hidden=16)
    targets, data = torch.tensor([1.0, -1.0], dtype=torch.float64), []
    for seed in range(2):
        atoms = sheet()
        atoms.rattle(0.1, seed=seed)
        tensors = [torch.tensor(x) for x in (atoms.positions, atoms.numbers, atoms.cell.array)]
        data.append((*tensors, (True, True)))

    def energies(model: ImageModel, origin: torch.Tensor) -> torch.Tensor:
        return torch.stack([model(*structure, origin) for structure in data])

    spreads, errors = {}, {}
    for random in (False, True):
        torch.manual_seed(1)
        model = ImageModel(config).double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(80):
            optimizer.zero_grad()
            found = energies(model, torch.rand(2).double() if random else torch.zeros(2).double())
            (found - targets).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            found = torch.stack([energies(model, origin) for origin in torch.rand(20, 2).double()])
        spreads[random], errors[random] = float(found.std(0).mean()), float((found - targets).square().mean())
    assert spreads[True] < 0.5 * spreads[False]
    assert errors[True] < errors[False]


def test_vacuum_costs_nothing() -> None:
    calc = calculator()
    atoms = cluster()
    energy = calc.get_potential_energy(atoms)
    pixels = np.array(calc.diagnostics["pixels"]) - 2  # the model adds a focus along open axes
    larger = atoms.copy()
    larger.set_cell(atoms.cell * ((pixels + 6) / pixels)[:, None])
    assert calc.get_potential_energy(larger) == pytest.approx(energy, rel=1e-9)


def test_atoms_far_from_each_other_add_up() -> None:
    calc = calculator()
    single = Atoms("Si", cell=[12, 12, 12], pbc=True)
    pair = single.repeat((2, 1, 1))
    assert calc.get_potential_energy(pair) == pytest.approx(2 * calc.get_potential_energy(single), rel=1e-10)
    bare = calculator().model.atomic[1].item()
    assert abs(calc.get_potential_energy(single) - bare) > 1e-4


def test_the_calculators_contract(tmp_path: Any) -> None:
    atoms = solid()
    atoms.calc = calculator()
    before = atoms.copy()
    atoms.get_forces()
    atoms.get_stress()
    atoms.calc.export_properties()
    assert atoms == before
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energies()
    save_model(atoms.calc.model, tmp_path / "image.safetensors", {"name": "image"})
    twin = AndersoNN(load_model(tmp_path / "image.safetensors"), dtype="float32")
    assert twin.get_potential_energy(atoms) == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    results = atoms.calc.evaluate([solid(), cluster()], forces=True)
    assert results[0]["energy"] == pytest.approx(atoms.get_potential_energy(), rel=1e-12)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (molecule("H2O", vacuum=3.0), "contains H, O; this model knows C, Si"),
        (bulk("Si", a=1.5), "pixels, fewer than the 6 of a tile; repeat the cell"),
        (Atoms("Si"), "image spans the first 3 cell vectors"),
        (Atoms("Si", cell=[6, 6, 6]), "1 atoms are closer than 2 Å to an open edge"),
        (Atoms(), "no atoms"),
        (Atoms("Si", [[np.nan, 0, 0]], cell=[6, 6, 6], pbc=True), "not finite"),
        (Atoms("Si2", cell=[6, 6, 6], pbc=True), "atoms 0 and 1 are"),
    ],
)
def test_structures_without_a_meaning(atoms: Atoms, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calculator().get_potential_energy(atoms)


def test_weights_that_are_not_finite() -> None:
    calc = calculator()
    with torch.no_grad():
        calc.model.atomic.mul_(torch.nan)
    with pytest.raises(CalculationFailed, match="not finite"):
        calc.get_potential_energy(solid())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spacing": 0.0}, "spacing is 0.0 Å"),
        ({"sigma": float("nan")}, "sigma is nan"),
        ({"origins": 0}, "origins is 0"),
        ({"elements": ()}, "elements is"),
        ({"elements": (14, 6)}, "ascending"),
        ({"focus": 0}, "focus is"),
    ],
)
def test_configs_without_a_meaning(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageConfig(**{"elements": (6,), **changes})
