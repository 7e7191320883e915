"""Universal training set: resumed runs, and its extension where a model's errors are largest."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from universal_frames import ROOT, TINY


def test_killed_and_resumed_equals_uninterrupted(
    set_of: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that is killed while it writes its second piece, then two workers."""
    dies = (
        "import os, signal, make, packed\n"
        "make.PIECE = 4\n"
        "whole = packed.np.savez_compressed\n"
        "def half(stream, **arrays):\n"
        "    if '000001' in stream.name:\n"
        "        stream.write(b'PK'); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    whole(stream, **arrays)\n"
        "packed.np.savez_compressed = half\n"
        f"make.main({['label', str(tmp_path / 'killed'), *TINY]!r})\n"
    )
    ended = subprocess.run([sys.executable, "-c", dies], cwd=ROOT / "universal", capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert sorted(path.name for path in (tmp_path / "killed").glob("*.npz")) == ["000000.npz"]
    first = (tmp_path / "killed" / "000000.npz").stat().st_mtime_ns
    monkeypatch.setattr(set_of.make, "PIECE", 4)
    for worker in ("1", "0"):
        set_of.make.main(["label", str(tmp_path / "killed"), *TINY, "--worker", worker, "--of", "2"])
    said = capsys.readouterr().out
    assert "1 of 2 pieces are there" in said
    assert "left for 0 pieces" in said
    set_of.make.main(["label", str(tmp_path / "whole"), *TINY])
    assert (tmp_path / "killed" / "000000.npz").stat().st_mtime_ns == first
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == names
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(SystemExit):
        set_of.make.main(["label", str(tmp_path / "whole"), *TINY, "--seed", "12"])
    assert "was begun with seed 11, now 12" in capsys.readouterr().err


def test_a_teacher_that_labels_nothing_ends_the_run(set_of: SimpleNamespace, tmp_path: Path) -> None:
    plan = set_of.make.Plan(
        list(set_of.sources.prototypes({26}, elements=3, dimers=0, alloys=0, molecules=0)), {26}, ()
    )
    with pytest.raises(RuntimeError, match="none of 3 structures got a sound label"):
        set_of.make.make_piece(plan, set_of.teacher.load("emt"), 0, tmp_path / "000000.npz")
    assert not (tmp_path / "000000.npz").exists()


def test_the_worst_are_picked_within_their_quotas(set_of: SimpleNamespace) -> None:
    errors = [0.1, 0.9, 0.8, 0.7, 0.6, 0.5]
    names, tags = ["A", "B", "B", "B", "A", "C"], ["x", "x", "x", "y", "x", "y"]
    assert set_of.extend.worst(errors, 3).tolist() == [1, 2, 3]
    assert set_of.extend.worst(errors, 3, (names, 1)).tolist() == [1, 4, 5]
    assert set_of.extend.worst(errors, 4, (names, 2), (tags, 2)).tolist() == [1, 2, 5]
    assert set_of.extend.worst([], 4, ([], 2)).tolist() == []


def test_errors_count_relative_to_the_label(set_of: SimpleNamespace) -> None:
    label, extend = set_of.teacher.Label, set_of.extend

    def of(size: float) -> object:
        return label(0.0, np.full((4, 3), size), np.zeros(6))

    assert extend.error_of(of(1.1), of(1.0)) == pytest.approx(0.1 / 1.1)
    assert extend.error_of(of(10.1), of(10.0)) == pytest.approx(0.1 / 10.1)
    assert extend.error_of(of(0.01), of(0.0)) == pytest.approx(0.1)
    assert extend.error_of(None, of(1.0)) == extend.error_of(of(np.nan), of(1.0)) == extend.UNKNOWN
    assert extend.disagreement([of(1.0), of(1.1), of(2.0)]) == pytest.approx(1.0 / 1.1)


@pytest.mark.parametrize("committee", [False, True])
def test_extending_finds_where_a_model_is_wrong(set_of: SimpleNamespace, tmp_path: Path, committee: bool) -> None:
    """EMT is the teacher; the model is EMT whose platinum is too stiff by half."""
    (tmp_path / "stiff.py").write_text(
        "from ase.calculators.emt import EMT\n"
        "class Stiff(EMT):\n"
        "    def calculate(self, atoms=None, *others):\n"
        "        super().calculate(atoms, *others)\n"
        "        if 78 in atoms.numbers:\n"
        "            self.results['forces'] = 1.5 * self.results['forces']\n"
    )
    models = ["stiff:Stiff", *(["emt"] if committee else [])]
    options = [*TINY, "--dimers", "0", "--model", *models, "--share", "0.3"]
    sys.path.insert(0, str(tmp_path))
    try:
        set_of.extend.main(["label", str(tmp_path / "pieces"), *options])
    finally:
        sys.path.remove(str(tmp_path))
    found = set_of.make.read_all([tmp_path / "pieces"])
    assert all(set_of.split.part_of(name) == "train" for name in set_of.packed.formulas(found))
    picking = ["--number", "8", "--per-formula", "4", "--per-tag", "0.75"]
    set_of.extend.main(["pick", str(tmp_path / "more"), str(tmp_path / "pieces"), *picking])
    picked = set_of.packed.read(tmp_path / "more" / "worst.npz")
    atoms = list(set_of.packed.unpack(picked))
    assert 4 <= len(atoms) <= 8
    assert all(78 in one.numbers for one in atoms if one.info["error"] > 0.01)
    assert sum(78 in one.numbers for one in atoms) >= 4
    for one in atoms:  # the labels are the teacher's
        right = one.copy()
        right.calc = EMT()
        np.testing.assert_allclose(one.get_forces(), right.get_forces(), atol=1e-5)


def test_structures_for_which_a_model_fails_are_candidates(set_of: SimpleNamespace) -> None:
    """It knows no platinum and gives huge forces for nickel: the teacher judges both, and no walk goes on there."""
    sampling, teacher, label = set_of.sampling, set_of.teacher, set_of.teacher.Label

    def failing(frames: Sequence[Atoms]) -> list[object]:
        return [None if 78 in one.numbers else label(0.0, np.full((len(one), 3), 1e3), np.zeros(6)) for one in frames]

    bases = list(set_of.sources.prototypes({28, 78}, elements=2, dimers=0, alloys=0, molecules=0))
    plan = set_of.make.Plan(bases, {28, 78}, (), ("train",))
    frames = set_of.extend.candidates(plan, [failing], 0, 1.0, 6)
    assert [frame.step for frame in frames] == [0] * len(bases)
    pairs = set_of.extend.judged(frames, teacher.load("emt"))
    assert {int(frame.atoms.numbers[0]) for frame, _ in pairs} == {28, 78}
    assert {error for _, error in pairs} == {set_of.extend.UNKNOWN}
    assert all(sampling.sound(frame.label, len(frame.atoms)) for frame, _ in pairs)


def test_alkali_metals_take_the_labels_of_the_teacher_that_sees_them(set_of: SimpleNamespace, tmp_path: Path) -> None:
    """Of the set free atoms and other elements stay; of the other teacher what is not torn apart is added, twice."""
    bcc, torn, salt = bulk("Cs", "bcc", a=6.1), bulk("Cs", "bcc", a=8.0), bulk("CsCl", "cesiumchloride", a=4.1)
    packed = set_of.packed

    def labelled(energy: float, *frames: Atoms) -> Any:
        for atoms in frames:
            zeros = {"forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
            atoms.calc = SinglePointCalculator(atoms, energy=energy, **zeros)
            atoms.info = {"tag": "element", "step": 0}
        return packed.pack(list(frames))

    packed.write(tmp_path / "set.npz", labelled(-1.0, bcc.copy(), torn.copy(), salt))
    packed.write(tmp_path / "better.npz", labelled(-2.0, bcc.copy(), torn.copy()))
    set_of.alkali.main([str(tmp_path / name) for name in ("set.npz", "better.npz", "joined.npz")])
    found = packed.read(tmp_path / "joined.npz")
    volumes = np.abs(np.linalg.det(found["cell"])).round().astype(int)
    kinds = sorted(zip(found["energy"].tolist(), volumes.tolist(), strict=True))
    assert kinds == [(-2.0, 113), (-2.0, 113), (-1.0, 69), (-1.0, 256)]
