"""The resume file of a tiled evaluation: damage is reported, and one evaluation at a time uses it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import accidents
from tiled_models import CASES, MODEL, results, tiled

from ase_andersonn.lock import InUseError
from ase_andersonn.tiles import evaluator as tiled_module
from ase_andersonn.tiles.resume_file import PartialSums, ResumeFile, fingerprint


def some_sums(*, forces: bool = True) -> PartialSums:
    sums = PartialSums.empty(40, 60, forces=forces, stress=forces)
    sums.energies[:] = np.linspace(-1.0, 1.0, 60)
    return replace(sums, done=7, batch=3)


@pytest.mark.parametrize("forces", [True, False])
def test_sums_come_back(tmp_path: Path, forces: bool) -> None:
    sums, work = some_sums(forces=forces), ResumeFile(tmp_path / "tiles.work", "key")
    work.save(sums, now=True)
    found = ResumeFile(tmp_path / "tiles.work", "key").load()
    for name, value in vars(sums).items():
        assert np.array_equal(vars(found)[name], value), name  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="belongs to another structure, model or setting"):
        ResumeFile(tmp_path / "tiles.work", "other").load()


def test_every_damage_is_detected(tmp_path: Path) -> None:
    work = ResumeFile(tmp_path / "tiles.work", "key")
    work.save(some_sums(), now=True)
    for damage in accidents(tmp_path / "tiles.work"):
        with pytest.raises(ValueError, match=r"tiles\.work is not a work file .* Remove it to start over") as caught:
            work.load()
        assert type(caught.value) is ValueError, damage
    assert work.load() is not None


def test_one_evaluation_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms, work, refused = CASES["skewed"](), tmp_path / "tiles.work", []
    add = tiled_module.add

    def meanwhile(*args: Any) -> None:
        add(*args)
        if not refused:
            refused.append(True)
            for other in (atoms, CASES["crystal"]()):
                with pytest.raises(InUseError, match=rf"tiles\.work is in use by process {os.getpid()} on .*another"):
                    results(tiled(3.0, work=work), other)

    monkeypatch.setattr(tiled_module, "add", meanwhile)
    given = results(tiled(3.0, work=work), atoms, forces=False)["energy"]
    assert refused
    assert given == results(tiled(3.0, work=work), atoms, forces=False)["energy"]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named_before_work_begins(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none to write tiles\.work into"):
        results(tiled(3.0, work=tmp_path / "none" / "tiles.work"), CASES["crystal"]())


def test_the_key_is_of_all_that_the_sums_depend_on() -> None:
    atoms = CASES["crystal"]()
    changed = [atoms.copy() for _ in range(4)]
    changed[0].positions[0, 0] += 1e-9
    changed[1].numbers[0] = 6
    changed[2].cell[0, 0] += 1e-9
    changed[3].pbc[2] = False
    keys = [fingerprint(other, MODEL, (1.0,)) for other in (atoms, *changed)]
    keys += [fingerprint(atoms, MODEL, (2.0,))]
    before = MODEL.config
    MODEL.config = replace(before, contraction=0.5)
    keys += [fingerprint(atoms, MODEL, (1.0,))]
    MODEL.config = before
    assert len(set(keys)) == len(keys)
    assert fingerprint(atoms.copy(), MODEL, (1.0,)) == keys[0]
