"""Monte Carlo in one call: the averages of springs and gases, exact restarts, clear errors."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read
from small_models import small_calculator
from springs import Springs

from ase_andersonn.mc import Displacement, SpeciesSwap
from ase_andersonn.workflows.monte_carlo import monte_carlo


def alloy() -> Atoms:
    atoms = bulk("Cu", cubic=True, a=3.8)
    atoms.symbols[0] = "Au"
    return atoms


def test_springs_have_the_energy_of_equipartition() -> None:
    """(3 N − 3) kT / 2, as their sites move as a whole; known to 3 %."""
    atoms = bulk("Cu", cubic=True)
    found = monte_carlo(atoms, Springs(atoms), temperature=600.0, sweeps=5000, seed=2)
    expected = 4.5 * units.kB * 600.0
    assert found.energy.error < 0.03 * expected
    assert abs(found.energy.mean - expected) < 4 * found.energy.error
    assert found.energy.n == 4000
    assert found.volume is None
    assert 0.3 < found.acceptance["Displacement"] < 0.55


def test_volumes_of_an_ideal_gas() -> None:
    """⟨V⟩ = (N + 1) kT / p; known to 7 %."""
    atoms, pressure = bulk("Cu", cubic=True), 1e-3
    expected = 5 * units.kB * 600.0 / pressure
    atoms.set_cell([expected ** (1 / 3)] * 3, scale_atoms=True)
    found = monte_carlo(
        atoms, Springs(atoms, 0.0), temperature=600.0, sweeps=4000, moves=["volume"], pressure=pressure, seed=1
    )
    assert found.volume is not None
    assert found.volume.error < 0.07 * expected
    assert abs(found.volume.mean - expected) < 4 * found.volume.error
    assert len(found.volumes) == 4000


@pytest.mark.parametrize("name", ["EMT", "LennardJones", "AndersoNN"])
def test_a_run_goes_on_as_if_it_had_not_ended(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make: Any
    make, atoms, moves = {
        "EMT": (EMT, alloy(), ["displacement", "swap", "volume", "cell"]),
        "LennardJones": (
            lambda: LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0),
            bulk("Ar", cubic=True, a=5.3),
            ["displacement", "volume"],
        ),
        "AndersoNN": (small_calculator, bulk("Si"), ["displacement"]),
    }[name]

    def run(stem: str, sweeps: int, **more: Any) -> Any:
        files = {"trajectory": f"{stem}.traj", "log": f"{stem}.log", "restart": f"{stem}.npz"}
        return monte_carlo(
            atoms, make(), temperature=500.0, sweeps=sweeps, moves=moves, equilibration=5, seed=1, every=4, **files,
            **more,
        )  # fmt: skip

    whole, first = run("a", 26), run("b", 20)
    again = run("b", 26, resume=True)
    assert (first.sweeps, again.sweeps) == (20, 26)
    np.testing.assert_array_equal(again.energies, whole.energies)
    np.testing.assert_array_equal(again.atoms.positions, whole.atoms.positions)
    np.testing.assert_array_equal(again.atoms.numbers, whole.atoms.numbers)
    assert (again.energy, again.acceptance, again.volume) == (whole.energy, whole.acceptance, whole.volume)
    assert Path("a.log").read_text() == Path("b.log").read_text()
    assert len(read("a.traj", ":")) == len(read("b.traj", ":")) == 7
    assert not atoms.calc
    json.dumps(again.to_dict(), allow_nan=False)
    again.plot("mc.png")


def test_a_signal_ends_a_run_which_goes_on_from_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Interrupted(EMT):
        calls = 0

        def calculate(self, *args: Any, **kwargs: Any) -> None:
            self.calls += 1
            if self.calls == 70:
                os.kill(os.getpid(), signal.SIGTERM)
            super().calculate(*args, **kwargs)

    options: dict[str, Any] = {"temperature": 500.0, "sweeps": 25, "seed": 1, "every": 1, "equilibration": 5}
    with pytest.raises(KeyboardInterrupt, match="interrupted after") as raised:
        monte_carlo(alloy(), Interrupted(), restart="b.npz", trajectory="b.traj", **options)
    stopped = raised.value.result  # type: ignore[attr-defined]
    assert 10 < stopped.sweeps < 20
    assert stopped.stopped_because == f"after {stopped.sweeps} sweeps by SIGTERM; resume goes on from sweep 10"
    again = monte_carlo(alloy(), EMT(), restart="b.npz", trajectory="b.traj", resume=True, **options)
    whole = monte_carlo(alloy(), EMT(), restart="a.npz", **options)
    np.testing.assert_array_equal(again.energies, whole.energies)
    assert [image.info["sweep"] for image in read("b.traj", ":")] == list(range(26))


def test_moves_of_ones_own() -> None:
    found = monte_carlo(
        alloy(), EMT(), temperature=900.0, sweeps=5, moves=[Displacement(0.05, n_atoms=2), SpeciesSwap()], seed=1
    )
    assert set(found.acceptance) == {"Displacement", "SpeciesSwap"}
    assert found.steps.keys() == {"Displacement"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"moves": ["jump"]}, "there is no move 'jump'; moves are displacement, swap, volume, cell"),
        ({"moves": []}, "moves is empty"),
        ({"moves": "swap"}, "two species"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"sweeps": 0}, "sweeps is 0"),
        ({"sweeps": 3, "equilibration": 3}, "has to leave some"),
        ({"pressure": 0.1}, "changes nothing without the move"),
        ({"resume": True}, "resume needs the restart file"),
        ({"trajectory": "x.xyz"}, "unknown ending"),
    ],
)
def test_wrong_input_is_refused(
    options: dict[str, Any], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=text):
        monte_carlo(bulk("Cu", cubic=True), EMT(), **{"temperature": 300.0, "sweeps": 2, **options})
    assert list(tmp_path.iterdir()) == []


def test_states_of_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    options: dict[str, Any] = {"temperature": 300.0, "sweeps": 2, "equilibration": 0, "restart": path, "seed": 1}
    monte_carlo(alloy(), EMT(), **options)
    with pytest.raises(ValueError, match="is there already"):
        monte_carlo(alloy(), EMT(), **options)
    with pytest.raises(ValueError, match=r"temperature_K was 300.0 and is 400.0"):
        monte_carlo(alloy(), EMT(), **{**options, "temperature": 400.0}, resume=True)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a readable state file of a Monte Carlo run"):
        monte_carlo(alloy(), EMT(), **options, resume=True)
