"""Screening: rows for all that is given, duplicates, properties, filters, ranking, hull, files."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.db import connect
from ase.io import read
from batched import BatchedEMT
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core.composition import Composition
from pymatgen.entries.computed_entries import ComputedEntry
from pymatgen.io.ase import AseAtomsAdaptor
from screened import metals
from small_models import small_calculator

from ase_andersonn.classifier import Prediction
from ase_andersonn.workflows.eos import equation_of_state
from ase_andersonn.workflows.relax import relax
from ase_andersonn.workflows.screen import screen
from ase_andersonn.workflows.screen.duplicates import duplicates


def rows_of(found: Any) -> dict[str, Any]:
    return {row["name"]: row for row in found.rows}


def test_numbers_are_those_of_the_workflows(tmp_path: Path) -> None:
    given = metals()[:3]
    rows = rows_of(screen(given, EMT(), tmp_path / "out", properties=["bulk_modulus"]))
    for name, atoms in given:
        alone = relax(atoms, EMT())
        n = len(atoms)
        assert rows[name]["status"] == "ok"
        assert rows[name]["energy_per_atom"] == round(alone.energy / n, 6) + 0.0
        assert rows[name]["volume_per_atom"] == round(alone.volume / n, 4)
        assert rows[name]["steps"] == alone.steps
        bare = Atoms(alone.atoms.numbers, alone.atoms.positions, cell=alone.atoms.cell, pbc=True)
        assert rows[name]["bulk_modulus"] == round(equation_of_state(bare, EMT()).bulk_modulus, 3)


def test_batches_give_the_same_rows(tmp_path: Path) -> None:
    alone = screen(metals(), EMT(), tmp_path / "a", fmax=0.02)
    calc = BatchedEMT()
    together = screen(metals(), calc, tmp_path / "b", fmax=0.02)
    assert max(map(len, calc.batches)) == 7
    assert together.rows == alone.rows


def test_broken_structures_are_rows_of_errors(tmp_path: Path) -> None:
    empty, close = Atoms(), Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 1e-5]], cell=[4, 4, 4], pbc=True)
    broken: list[Any] = [("unread", ValueError("cut\nshort")), ("empty", empty), ("close", close), 5, Path("none.cif")]
    given = [metals()[0], *broken, ("unknown", bulk("Si")), metals()[1]]
    found = screen(given, EMT(), tmp_path / "out")
    assert [row["status"] for row in found.rows] == ["ok", "ok", *["failed"] * 6]
    rows = rows_of(found)
    assert rows["unread"]["error"] == "cut short"
    assert "no atoms" in rows["empty"]["error"]
    assert "apart" in rows["close"]["error"]
    assert "Si" in rows["unknown"]["error"]
    assert rows["unknown"]["energy_per_atom"] is None
    assert set(rows) >= {"#4", "none.cif"}


def test_what_does_not_converge_has_energy_and_no_properties(tmp_path: Path) -> None:
    found = screen(metals()[:1], EMT(), tmp_path / "out", properties=["bulk_modulus"], steps=1, fmax=1e-4)
    (row,) = found.rows
    assert row["status"] == "unconverged"
    assert row["selected"] is False
    assert row["energy_per_atom"] is not None
    assert row["bulk_modulus"] is None
    assert "not converged after 1 steps" in str(row["error"])


def test_molecules_are_relaxed_and_have_no_moduli(tmp_path: Path) -> None:
    given = [("CO", molecule("CO")), ("again", molecule("CO"))]
    found = screen(given, EMT(), tmp_path / "out", properties=["bulk_modulus"])
    assert [row["status"] for row in found.rows] == ["incomplete", "incomplete"]
    assert "only crystals have it" in str(found.rows[0]["error"])
    assert found.rows[0]["volume_per_atom"] is None


def rotated(atoms: Atoms, angle: float) -> Atoms:
    turned = atoms.copy()
    turned.rotate(angle, (1, 2, 3), rotate_cell=True)
    return turned


def test_duplicates_are_found_in_any_cell_and_orientation() -> None:
    copper = bulk("Cu")
    strained = copper.copy()
    strained.set_cell(copper.cell.array * 1.02, scale_atoms=True)
    bcc = bulk("Cu", "bcc", a=2.87)
    given = [copper, bulk("Ni"), rotated(bulk("Cu", cubic=True), 33), bcc, strained, copper * (2, 1, 1), bulk("Ni")]
    assert duplicates(dict(enumerate(given))) == {2: 0, 4: 0, 5: 0, 6: 1}


def test_other_structures_of_one_formula_are_no_duplicates() -> None:
    diamond, graphite = bulk("C", "diamond", a=3.57), bulk("C", "hcp", a=2.46, c=6.7)
    rutile_like = Atoms("NaCl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[3.4] * 3, pbc=True)
    given = [diamond, graphite, bulk("NaCl", "rocksalt", a=5.64), rutile_like, bulk("ClNa", "zincblende", a=5.7)]
    assert duplicates(dict(enumerate(given))) == {}


def test_few_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    compared = []
    original = StructureMatcher.fit

    def fit(self: Any, one: Any, other: Any, **options: Any) -> bool:
        compared.append((one.formula, other.formula))
        return original(self, one, other, **options)

    monkeypatch.setattr(StructureMatcher, "fit", fit)
    volumes = [bulk("Cu", a=3.0 + 0.2 * k) for k in range(10)]
    others = [bulk(symbol) for symbol in ("Ni", "Al", "Pd", "Ag", "Pt", "Au")]
    assert duplicates(dict(enumerate([*volumes, *others]))) == {}
    assert compared == []


def test_duplicates_are_told_of_and_not_computed(tmp_path: Path) -> None:
    given = [("one", bulk("Cu")), ("two", bulk("Cu", cubic=True)), ("three", bulk("Ni"))]
    found = screen(given, EMT(), tmp_path / "out")
    row = rows_of(found)["two"]
    assert (row["status"], row["duplicate_of"], row["energy_per_atom"]) == ("duplicate", "one", None)
    kept = screen(given, EMT(), tmp_path / "kept", find_duplicates=False)
    assert [row["status"] for row in kept.rows] == ["ok"] * 3


def test_ranking_is_by_column_and_the_selected_come_first(tmp_path: Path) -> None:
    given = [*metals(), ("bad", ValueError("no"))]
    up = screen(given, EMT(), tmp_path / "a", filters=["volume_per_atom < 16"], sort="volume_per_atom")
    down = screen(given, EMT(), tmp_path / "b", sort="volume_per_atom", descending=True)
    volumes = [row["volume_per_atom"] for row in up.selected]
    assert volumes == sorted(volumes)
    assert all(volume < 16 for volume in volumes)
    assert [row["rank"] for row in up.rows] == [*range(1, len(volumes) + 1), *[None] * (8 - len(volumes))]
    assert [row["volume_per_atom"] for row in down.selected] == sorted(
        (row["volume_per_atom"] for row in up.rows if row["volume_per_atom"]), reverse=True
    )
    assert up.rows[-1]["name"] == down.rows[-1]["name"] == "bad"


def test_elastic_constants_and_phonons(tmp_path: Path) -> None:
    found = screen([bulk("Cu")], EMT(), tmp_path / "out", properties=["elastic", "phonons"], min_length=6.0)
    (row,) = found.rows
    assert row["status"] == "ok"
    assert row["elastic_bulk_modulus"] == pytest.approx(134, abs=2)
    assert row["mechanically_stable"] is row["dynamically_stable"] is True
    assert len(found.curves[0]["phonons"][0]["frequencies"][0]) == 3


def test_an_unstable_crystal_has_imaginary_phonons(tmp_path: Path) -> None:
    bcc = bulk("Cu", "bcc", a=2.88)
    (row,) = screen([bcc], EMT(), tmp_path / "out", properties=["phonons"], min_length=6.0).rows
    assert row["dynamically_stable"] is False
    assert float(row["lowest_frequency"]) < -0.5


def test_lennard_jones(tmp_path: Path) -> None:
    sigma = 3.4
    calc = LennardJones(sigma=sigma, epsilon=0.0104, rc=12.0, smooth=False)
    (row,) = screen([bulk("Ar", a=5.4)], calc, tmp_path / "out", fmax=1e-3, properties=["bulk_modulus"]).rows
    assert row["volume_per_atom"] == pytest.approx((sigma * 1.09) ** 3 / 2**0.5, rel=0.01)  # nearest neighbours 1.09 σ


def test_labels(tmp_path: Path) -> None:
    class Classifier:
        def predict_many(self, structures: list[Atoms], *, progress_bar: bool) -> list[Any]:
            assert progress_bar is False
            one = Prediction("metal", {"metal": 0.9, "other": 0.1}, "metal", 0.9, 0.2)
            return [one if "Cu" in atoms.symbols else ValueError("not known") for atoms in structures]

    given = metals()[:2]
    found = screen(
        given, EMT(), tmp_path / "out", properties=["label"], classifier=Classifier(), filters=['label == "metal"']
    )
    (row,) = found.selected
    assert (row["name"], row["label"], row["label_probability"]) == ("Cu-0", "metal", 0.9)
    assert row["label_out_of_distribution"] == 0.2
    assert rows_of(found)["Ni-1"]["status"] == "incomplete"
    assert rows_of(found)["Ni-1"]["error"] == "label: not known"


def test_out_of_distribution_numbers_and_committees(tmp_path: Path) -> None:
    given = [bulk("Cu"), bulk("Si")]
    common = {"fmax": 50.0, "cell": "fixed"}
    calc = small_calculator(warm_start=False)
    rows = screen(given, calc, tmp_path / "one", **common).rows
    assert all(row["status"] == "ok" for row in rows)
    assert "energy_std" not in rows[0]
    for row in rows:
        atoms = bulk(str(row["formula"]))
        expected = calc.evaluate([atoms], forces=False)[0]["energy"] / len(atoms)
        assert row["energy_per_atom"] == pytest.approx(expected, abs=2e-6)

    class Doubtful(EMT):
        diagnostics: dict[str, Any] = {}  # noqa: RUF012

        def evaluate(self, structures: list[Atoms], *, forces: bool = True, stress: bool = False) -> list[Any]:
            n = [len(atoms) for atoms in structures]
            self.diagnostics = {"extrapolation": [np.arange(k) + 1.0 for k in n], "energy_std": [0.1 * k for k in n]}
            names = ["energy", *(["forces"] if forces else []), *(["stress"] if stress else [])]
            return [{name: EMT().get_property(name, atoms) for name in names} for atoms in structures]

    found = rows_of(screen(metals()[:2], Doubtful(), tmp_path / "two"))
    assert (found["Cu-0"]["extrapolation"], found["Cu-0"]["largest_extrapolation"]) == (2.5, 4.0)
    assert found["Ni-1"]["energy_std"] == 0.1


def toy_entries() -> list[Any]:
    """Energies per atom near EMT's: Cu and Au at 0, an ordered compound below."""
    return [ComputedEntry("Cu", 0.0), ComputedEntry("Au", 0.01), ComputedEntry("Cu3Au", -0.2)]


def ordered() -> Atoms:
    atoms = bulk("Au", cubic=True, a=3.9)
    atoms.numbers[2:] = 29
    return atoms


def test_energies_above_the_hull_are_pymatgens(tmp_path: Path) -> None:
    found = screen([("CuAu", ordered()), ("Cu", bulk("Cu"))], EMT(), tmp_path / "out", references=toy_entries())
    diagram = PhaseDiagram(toy_entries())
    for name, formula in (("CuAu", "CuAu"), ("Cu", "Cu")):
        row = rows_of(found)[name]
        energy = row["energy_per_atom"] * Composition(formula).num_atoms
        entry = ComputedEntry(Composition(formula), energy)
        expected = diagram.get_e_above_hull(entry, allow_negative=True)
        assert row["e_above_hull"] == pytest.approx(expected, abs=2e-6)
    assert [row["rank"] for row in found.rows] == [1, 2]  # ranked by the hull where there is one
    assert found.sort == "e_above_hull"


def test_structures_as_references_are_relaxed(tmp_path: Path) -> None:
    references = [("Cu", bulk("Cu", a=3.5)), bulk("Au", a=4.0)]
    found = screen([("CuAu", ordered()), ("Al", bulk("Al"))], EMT(), tmp_path / "out", references=references)
    rows = rows_of(found)
    pure = [relax(bulk(symbol), EMT()).energy for symbol in ("Cu", "Au")]
    expected = rows["CuAu"]["energy_per_atom"] - sum(pure) / 2
    assert rows["CuAu"]["e_above_hull"] == pytest.approx(expected, abs=1e-4)
    assert rows["Al"]["e_above_hull"] is None
    assert rows["Al"]["error"] == "e_above_hull: the references hold no pure Al."
    with pytest.raises(ValueError, match="the reference bad cannot be used: broken"):
        screen([bulk("Cu")], EMT(), tmp_path / "other", references=[("bad", ValueError("broken"))])


def test_the_files_hold_the_same_rows(tmp_path: Path) -> None:
    given = [('a, "b"\n', AseAtomsAdaptor.get_structure(bulk("Cu"))), *metals()[1:3], ("bad", ValueError("é\u2028"))]
    found = screen(given, EMT(), tmp_path / "out", filters=["volume_per_atom < 11"])
    assert 'a, "b"\\n' in rows_of(found)
    assert json.loads((tmp_path / "out" / "table.json").read_text()) == [dict(row) for row in found.rows]
    with open(tmp_path / "out" / "table.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == [row["name"] for row in found.rows]
    assert float(table[0]["energy_per_atom"]) == found.rows[0]["energy_per_atom"]
    frames = read(tmp_path / "out" / "relaxed.xyz", ":")
    assert [str(atoms.info["name"]) for atoms in frames] == [
        str(row["name"]).replace("\\", "")
        for row in found.rows[:3]  # which ASE's reader takes for an escape
    ]
    with connect(tmp_path / "out" / "table.db") as database:
        kept = [row.data["name"] for row in database.select()]
        best = database.get(selected=True)
    assert kept == [row["name"] for row in found.rows[:3]]
    assert best.energy_per_atom == found.selected[0]["energy_per_atom"]


def test_nothing_at_all(tmp_path: Path) -> None:
    found = screen([], EMT(), tmp_path / "out")
    assert found.rows == ()
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"properties": ["colour"]}, "properties has 'colour'; there are bulk_modulus"),
        ({"properties": ["label"]}, "needs a classifier"),
        ({"sort": "colour"}, "sort is 'colour'"),
        ({"sort": "bulk_modulus"}, "sort is 'bulk_modulus'"),
        ({"filters": ["bulk_modulus > 50"]}, "names 'bulk_modulus', which is no column"),
        ({"fmax": 0.0}, "fmax is 0.0"),
        ({"steps": -1}, "steps is -1"),
        ({"cell": "odd"}, "cell is 'odd'"),
        ({"block_atoms": 0}, "block_atoms is 0"),
    ],
)
def test_wrong_arguments_change_nothing(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        screen([bulk("Cu")], EMT(), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []
