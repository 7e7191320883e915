"""Universal training set: split by formula, packed arrays, sampling and teachers."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.units import GPa
from universal_frames import METALS, ROOT, TINY, emt_frames

from ase_andersonn.training import read_frames


def test_parts_and_what_is_held_out_are_functions_of_the_formula(set_of: SimpleNamespace) -> None:
    split = set_of.split
    salt = bulk("NaCl", "rocksalt", a=5.6)
    assert split.formula(salt) == split.formula(salt * (2, 1, 3)) == split.formula(Atoms("Cl2Na2")) == "ClNa"
    names = [f"A{m}B{n}" for m in range(1, 50) for n in range(1, 50)]
    shares = {part: np.mean([split.part_of(name) == part for name in names]) for part in split.PARTS}
    assert shares == pytest.approx({"train": 0.88, "valid": 0.04, "test": 0.08}, abs=0.015)
    held = split.held_out(names)
    assert held == split.held_out(reversed(names))
    assert len(held) / len(names) == pytest.approx(0.25, abs=0.03)
    # what is held out says nothing of the part
    assert np.mean([split.part_of(name) == "test" for name in held]) == pytest.approx(0.08, abs=0.04)


def test_parts_stay_what_they_were(set_of: SimpleNamespace) -> None:
    """Sets of before and after have to agree on every machine."""
    parts = {"ClNa": "train", "Cu": "train", "CuO": "train", "H2O": "train", "Al": "test", "Au": "test"}
    assert {name: set_of.split.part_of(name) for name in parts} == parts
    assert set_of.split.held_out(parts) == {"ClNa", "CuO", "H2O"}


def test_formulas_of_benchmarks_are_in_no_part(set_of: SimpleNamespace, tmp_path: Path) -> None:
    import json

    held = next(symbol for symbol in METALS if set_of.split.percentile(symbol) < 25)
    entry = {
        "lattice": {"matrix": (np.eye(3) * 4).tolist()},
        "sites": [{"species": [{"element": held}], "abc": [0, 0, 0]}],
    }
    (tmp_path / "benchmark.json").write_text(json.dumps([{"structure": entry}]))
    options = ["--benchmarks", str(tmp_path / "benchmark.json")]
    set_of.make.main(["label", str(tmp_path / "pieces"), *TINY, "--alloys", "0", *options])
    packed = set_of.make.read_all([tmp_path / "pieces"])
    names = set_of.packed.formulas(packed)
    assert held not in names
    assert len(set(names)) > 2
    # nor where pieces that were made without the benchmark are joined
    plain = set_of.packed.pack(emt_frames(14))
    set_of.packed.write(tmp_path / "plain.npz", plain)
    set_of.make.main(["join", str(tmp_path / "set"), str(tmp_path / "plain.npz"), *options])
    for part in ("train", "valid", "test"):
        found = set_of.packed.formulas(set_of.packed.read(tmp_path / "set" / f"{part}.npz"))
        assert held not in found
        assert all(set_of.split.part_of(name) == part for name in found)


def test_packed_arrays_come_back_as_they_were(set_of: SimpleNamespace, tmp_path: Path) -> None:
    packed, frames = set_of.packed, emt_frames(9)
    packed.write(tmp_path / "set.npz", packed.pack(frames))
    back = list(packed.unpack(packed.read(tmp_path / "set.npz")))
    for atoms, found in zip(frames, back, strict=True):
        assert found.pbc.all()
        np.testing.assert_array_equal(found.numbers, atoms.numbers)
        np.testing.assert_array_equal(found.positions, atoms.positions)
        np.testing.assert_array_equal(found.cell.array, atoms.cell.array)
        assert found.get_potential_energy() == atoms.get_potential_energy()
        np.testing.assert_allclose(found.get_forces(), atoms.get_forces(), atol=1e-6)
        np.testing.assert_allclose(found.get_stress(), atoms.get_stress(), atol=1e-7)
        assert found.info == atoms.info
    data = packed.read(tmp_path / "set.npz")
    some = list(packed.unpack(packed.take(data, np.array([5, 2]))))
    assert [str(a.symbols) for a in some] == [str(frames[5].symbols), str(frames[2].symbols)]
    again = packed.join([packed.take(data, np.arange(4)), packed.pack([]), packed.take(data, np.arange(4, 9))])
    assert all(np.array_equal(again[name], data[name]) for name in data)


def test_packed_files_that_lack_something_are_refused_by_name(set_of: SimpleNamespace, tmp_path: Path) -> None:
    packed = set_of.packed.pack(emt_frames(3))
    set_of.packed.write(tmp_path / "less.npz", {name: packed[name] for name in packed if name != "stress"})
    with pytest.raises(ValueError, match="lacks stress"):
        set_of.packed.read(tmp_path / "less.npz")
    set_of.packed.write(tmp_path / "short.npz", packed | {"forces": packed["forces"][:-1]})
    with pytest.raises(ValueError, match="forces have another length than 3 structures of 12 atoms"):
        set_of.packed.read(tmp_path / "short.npz")


def test_frames_for_training_carry_all_labels(set_of: SimpleNamespace, tmp_path: Path) -> None:
    frames = emt_frames(6)
    for part in ("train", "valid", "test"):
        set_of.packed.write(tmp_path / f"{part}.npz", set_of.packed.pack(frames))
    sys.path.insert(0, str(ROOT / "universal"))
    try:
        import importlib.util

        spec = importlib.util.spec_from_file_location("universal_frames", ROOT / "recipes" / "universal" / "frames.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "universal"))
    module.main([str(tmp_path), "--output", str(tmp_path / "frames"), "--number", "4"])
    found = read_frames([str(tmp_path / "frames" / "train.extxyz")])
    assert len(found) == 4
    assert len(read_frames([str(tmp_path / "frames" / "valid.extxyz")])) == 6
    for atoms, right in zip(found, frames, strict=False):
        assert atoms.info == right.info
        assert atoms.get_potential_energy() == pytest.approx(right.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), right.get_forces(), atol=1e-6)
        np.testing.assert_allclose(atoms.get_stress(), right.get_stress(), atol=1e-7)


def test_changes_of_a_crystal_are_what_their_names_say(set_of: SimpleNamespace) -> None:
    sampling, rng = set_of.sampling, np.random.default_rng(1)
    alloy = bulk("Cu", cubic=True)
    alloy.numbers[0] = 79
    for _ in range(3):
        assert len(sampling.vacancy(alloy, rng)) % 4 == 3
        assert len(sampling.interstitial(alloy, rng)) % 4 == 1
        other = sampling.substituted(alloy, rng, {47, 18})
        assert 47 in other.numbers
        assert 18 not in other.numbers
        assert sampling.room(sampling.contact(alloy, rng)) < 0.9
        cut = sampling.slab(alloy, rng)
        assert cut.cell.lengths()[2] > np.ptp(cut.positions[:, 2]) + 6.0


def test_walks_without_temperature_go_down_and_those_with_it_keep_their_structures_apart(
    set_of: SimpleNamespace,
) -> None:
    sampling, teacher = set_of.sampling, set_of.teacher.load("emt")
    start = sampling.rattled(bulk("Cu", cubic=True) * (2, 1, 1), 0.15, np.random.default_rng(0))
    down = sampling.Walker("element", sampling.rounded(start), 0.0, np.random.default_rng(1))
    frames = sampling.walks([down], teacher, {29})
    energies = [frame.label.energy for frame in frames]
    assert [frame.step for frame in frames] == list(range(sampling.RELAXING_STEPS + 1))
    assert energies[-1] < energies[0] - 0.5
    # a walk does not depend on the others beside it
    hot = [sampling.Walker("element", sampling.rounded(start), 600.0, np.random.default_rng(k)) for k in (5, 6)]
    alone = {frame.label.energy for frame in sampling.walks([hot[1]], teacher, {29})}
    hot[1] = sampling.Walker("element", sampling.rounded(start), 600.0, np.random.default_rng(6))
    together = {frame.label.energy for frame in sampling.walks(hot, teacher, {29})}
    assert alone < together
    assert len(alone) == sampling.STEPS + 1


def test_a_potential_that_is_wrong_for_rock_salt_is_refused(set_of: SimpleNamespace) -> None:
    """As those of MatGL are under other versions: energies are only somewhat off, stresses by 12 GPa."""
    label, name = set_of.teacher.Label, "TensorNet-MatPES-PBE-v2025.1-PES"

    def potential(energy: float, stress: float) -> object:
        def labels(frames: Sequence[Atoms]) -> list[object]:
            sigma = np.array([stress, stress, stress, 0, 0, 0]) * GPa
            return [label(energy * len(atoms), np.zeros((len(atoms), 3)), sigma) for atoms in frames]

        return labels

    set_of.teacher.check_rock_salt(potential(-3.3576, -0.1103), name)
    set_of.teacher.check_rock_salt(potential(-7.0, 1.2), "of my own")
    for energy, stress, folder in ((-2.737, -12.5, name), (-3.34, -0.11, name), (-2.737, -12.5, "of my own")):
        with pytest.raises(ValueError, match=r"gives NaCl at 5.69 Å .*pip install matgl==2.0.4"):
            set_of.teacher.check_rock_salt(potential(energy, stress), folder)


def test_teachers_by_name(set_of: SimpleNamespace) -> None:
    teacher, atoms = set_of.teacher, bulk("Cu", cubic=True)
    salt = bulk("NaCl", "rocksalt", a=5.6)
    first, *unknown = teacher.load("emt")([atoms, salt, salt * (1, 1, 2), salt * (1, 1, 2)])
    assert unknown == [None, None, None]
    (second,) = teacher.load("ase.calculators.emt:EMT,asap_cutoff=0")([atoms])
    assert second.energy == first.energy
    by_batch, known = teacher.load("ase_andersonn:AndersoNN,model=mlearn-pbe")([atoms, bulk("NaCl", "rocksalt", a=5.6)])
    assert known is None
    assert by_batch.stress.shape == (6,)
    with pytest.raises(ValueError, match="'tensornet' is no folder of MatGL"):
        teacher.load("tensornet")


def test_molecules_and_dimers_keep_their_boxes(set_of: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    water = set_of.sources.g2_molecule("H2O", rng)
    assert water.pbc.all()
    assert str(water.symbols) == str(molecule("H2O").symbols)
    step = set_of.sampling.moved(
        set_of.sampling.Walker("molecule", water, 300.0, rng),
        set_of.teacher.Label(0.0, np.zeros((3, 3)), np.full(6, 0.1)),
    )
    np.testing.assert_allclose(step.atoms.cell.array, water.cell.array, rtol=1e-6)
