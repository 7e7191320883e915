"""A screening that ends at any moment goes on with nothing lost, and ends in the same files byte for byte."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from hypothesis import given, settings
from hypothesis import strategies as st
from screened import contents, counting, metals

from ase_andersonn.lock import InUseError, Lock
from ase_andersonn.workflows.screen import screen
from ase_andersonn.workflows.screen.journal import NAME, Journal

STOP = 12
"""Calculations to an interruption: enough for each block, and not for two of the longer ones."""
OPTIONS: dict[str, Any] = {
    "block_atoms": 4,
    "fmax": 0.05,
    "filters": ["volume_per_atom < 16"],
    "sort": "volume_per_atom",
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A screening without an interruption."""
    folder = tmp_path_factory.mktemp("straight") / "out"
    screen([*metals(), ("bad", ValueError("broken"))], EMT(), folder, **OPTIONS)
    return folder


def again(folder: Path, calc: Any = None, **options: Any) -> Any:
    given_ = [*metals(), ("bad", ValueError("broken"))]
    return screen(given_, calc or EMT(), folder, **{**OPTIONS, "resume": True, **options})


def test_what_was_computed_is_not_computed_again(straight: Path) -> None:
    calc = counting(0)
    expected = contents(straight)
    again(straight, calc)
    assert calc.count == 0
    assert contents(straight) == expected


@settings(max_examples=15)
@given(share=st.floats(0.0, 1.0))
def test_a_journal_cut_at_any_byte_gives_the_same_files(
    straight: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    data = (straight / NAME).read_bytes()
    folder = tmp_path_factory.mktemp("cut")
    (folder / NAME).write_bytes(data[: round(share * len(data))])
    again(folder)
    assert contents(folder) == contents(straight)
    assert (folder / NAME).read_bytes() == data


@settings(max_examples=15)
@given(share=st.floats(0.0, 0.999999), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_and_computed_anew(
    straight: Path, tmp_path_factory: pytest.TempPathFactory, share: float, bit: int
) -> None:
    data = bytearray((straight / NAME).read_bytes())
    place = int(share * len(data))
    data[place] ^= 1 << bit
    folder = tmp_path_factory.mktemp("flipped")
    (folder / NAME).write_bytes(data)
    if place <= data.index(b"\n") or place <= (straight / NAME).read_bytes().index(b"\n"):
        with pytest.raises(ValueError, match="damaged in its first line"):
            again(folder)
        assert (folder / NAME).read_bytes() == data
    else:
        again(folder)
        assert contents(folder) == contents(straight)


def test_interrupted_again_and_again(straight: Path, tmp_path: Path) -> None:
    folder, rounds = tmp_path / "out", 0
    while True:
        calc = counting(STOP)
        try:
            again(folder, calc)
            break
        except KeyboardInterrupt:
            rounds += 1
            assert not (folder / "table.csv").exists()
    assert rounds >= 2
    assert contents(folder) == contents(straight)


SCRIPT = """
import sys, time
from ase.calculators.emt import EMT
from screened import metals
from ase_andersonn.workflows.screen import screen
import test_screen_resume

calculate = EMT.calculate
def slow(self, *arguments, **options):
    time.sleep(0.01)
    calculate(self, *arguments, **options)
EMT.calculate = slow
test_screen_resume.again(sys.argv[1])
"""


@pytest.mark.slow
def test_killed_at_random_moments(straight: Path, tmp_path: Path) -> None:
    folder, rng = tmp_path / "out", random.Random(5)
    paths = os.pathsep.join(
        [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    command, environment = [sys.executable, "-c", SCRIPT, str(folder)], os.environ | {"PYTHONPATH": paths}
    kills, sizes = 0, []
    while kills < 3:
        process = subprocess.Popen(command, env=environment)
        wanted = sum(sizes[-1:]) + rng.randrange(200, 4000)
        while process.poll() is None and size_of(folder) < wanted:
            time.sleep(0.005)
        time.sleep(0.05 * rng.random())
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        sizes.append(size_of(folder))
    assert kills >= 2
    assert sizes == sorted(sizes)
    subprocess.run(command, env=environment, check=True)
    assert contents(folder) == contents(straight)


def size_of(folder: Path) -> int:
    return (folder / NAME).stat().st_size if (folder / NAME).exists() else 0


def test_filters_and_ranking_may_be_others(straight: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / NAME).write_bytes((straight / NAME).read_bytes())
    calc = counting(0)
    found = again(folder, calc, filters=["energy_per_atom < 0"], sort="energy_per_atom")
    assert calc.count == 0
    energies = [row["energy_per_atom"] for row in found.selected]
    assert energies == sorted(energies)


def test_structures_may_be_added(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    screen(metals()[:3], EMT(), folder, block_atoms=1, fmax=0.05)
    screen(metals()[:5], EMT(), folder, block_atoms=1, fmax=0.05, resume=True)
    screen(metals()[:5], EMT(), tmp_path / "other", block_atoms=1, fmax=0.05)
    assert contents(folder) == contents(tmp_path / "other")


def test_other_settings_are_refused_and_change_nothing(straight: Path) -> None:
    before = {path.name: path.read_bytes() for path in straight.iterdir()}
    with pytest.raises(ValueError, match=r"other settings \(fmax was 0.05 and is 0.2\)"):
        again(straight, fmax=0.2)
    with pytest.raises(ValueError, match="identity was"):
        again(straight, identity={"model": "other"})
    with pytest.raises(ValueError, match="calculator was"):
        again(straight, EMT(asap_cutoff=True))
    with pytest.raises(FileExistsError, match="go on with resume"):
        again(straight, resume=False)
    assert {path.name: path.read_bytes() for path in straight.iterdir()} == before


def test_one_process_at_a_time(straight: Path) -> None:
    with Lock(straight / ".lock", "it", ""), pytest.raises(InUseError, match="in use by process"):
        again(straight)


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="name another folder"):
        screen([bulk("Cu")], EMT(), tmp_path, resume=True)
    assert (tmp_path / NAME).read_text() == '{"a": 1}\n'


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    value = [{"a": 0.1 + 0.2, "b": None, "c": "é\u2028\n"}]
    with Journal(tmp_path, {"x": (1, 2)}, resume=False) as journal:
        assert journal.write("k", value) == value
    with Journal(tmp_path, {"x": [1, 2]}, resume=True) as journal:
        assert journal.found == {"k": value}
    assert json.loads((tmp_path / NAME).read_bytes().splitlines()[1][65:])["key"] == "k"
