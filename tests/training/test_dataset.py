"""Frames as graphs with labels, and the validation split."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.training.data.dataset import FrameDataset, split

CPU = torch.device("cpu")


def labelled(atoms: Atoms) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, energy=0.0)
    return atoms


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.floats(0.0, 0.5), st.integers(0, 3))
def test_the_split_takes_the_same_share_of_every_formula(counts: list[int], fraction: float, seed: int) -> None:
    frames = [bulk(symbol) for symbol, n in zip(("Cu", "Ni", "Al", "Au"), counts, strict=False) for _ in range(n)]
    train, validation = split(frames, fraction, seed)
    assert sorted(train + validation) == list(range(len(frames)))
    if all(n > 1 for n in counts):
        assert len(validation) == max(round(fraction * len(frames)), fraction > 0)
    share = len(validation) / max(sum(n for n in counts if n > 1), 1)
    start = 0
    for n in counts:
        held = sum(start <= i < start + n for i in validation)
        assert (n > 1 and abs(held - share * n) <= 1.0 + 1e-9) or held == 0
        start += n


def test_the_split_depends_on_the_seed_alone() -> None:
    frames = [bulk("Cu") for _ in range(50)]
    assert split(frames, 0.2, 3) == split(frames, 0.2, 3)
    assert split(frames, 0.2, 3) != split(frames, 0.2, 4)


def test_a_batch_mixes_frames_with_and_without_labels(frames: list[Atoms]) -> None:
    dataset = FrameDataset(frames, 3.5)
    batch = dataset.batch(range(5), device=CPU, dtype=torch.float64)
    n = [len(atoms) for atoms in frames[:5]]
    assert batch.systems.n_per_system.tolist() == n
    assert batch.graph.numbers.tolist() == [z for atoms in frames[:5] for z in atoms.numbers]
    for i, atoms in enumerate(frames[:5]):
        assert batch.labels.energy[i].item() == atoms.get_potential_energy()
        rows = batch.systems.system == i
        torch.testing.assert_close(batch.labels.forces[rows], torch.tensor(atoms.get_forces()))
        if "stress" in atoms.calc.results:
            torch.testing.assert_close(batch.labels.stress[i], torch.tensor(atoms.get_stress(voigt=False)))
        else:
            assert batch.labels.stress[i].isnan().all()


def test_energies_keep_their_digits_in_float32(frames: list[Atoms]) -> None:
    frames[0].calc.results["energy"] = -123456.789012345
    batch = FrameDataset(frames, 3.5).batch([0], device=CPU, dtype=torch.float32)
    assert batch.labels.energy.item() == -123456.789012345
    assert batch.labels.forces.dtype == torch.float32


def test_the_fingerprint_sees_labels_and_positions(frames: list[Atoms]) -> None:
    before = FrameDataset(frames, 3.5).fingerprint()
    assert FrameDataset(frames, 3.5).fingerprint() == before
    frames[0].calc.results["energy"] += 1e-9
    after = FrameDataset(frames, 3.5).fingerprint()
    assert after != before


def test_the_fingerprint_sees_all_that_is_learnt_from() -> None:
    def change(frames: list[Atoms], name: str) -> None:
        atoms = frames[1]
        if name == "order":
            frames.reverse()
        elif name == "pbc":
            atoms.pbc = [True, True, False]
        elif name == "cell":
            atoms.cell[2, 2] += 1e-9
        elif name == "numbers":
            atoms.numbers[0] = 28
        elif name == "positions":
            atoms.positions[0, 0] += 1e-9
        elif name == "one more":
            frames.append(frames[0])
        elif name in atoms.calc.results:
            atoms.calc.results[name] = atoms.calc.results[name] + 1e-9
        elif name == "no stress":
            del atoms.calc.results["stress"]

    found = set()
    changes = ("none", "order", "pbc", "cell", "numbers", "positions", "one more", "energy", "forces", "stress")
    for name in (*changes, "no stress"):
        frames = [bulk("Cu", cubic=True), bulk("Cu", cubic=True) * (1, 1, 2)]
        for atoms in frames:
            results = {"energy": -1.0, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
            atoms.calc = SinglePointCalculator(atoms, **results)
        change(frames, name)
        found.add(FrameDataset(frames, 3.0).fingerprint())
    assert len(found) == len(changes) + 1


def test_no_frames() -> None:
    assert len(FrameDataset([], 3.5)) == 0


def test_balanced_sets_of_elements_have_about_as_many_atoms() -> None:
    frames = [labelled(bulk("Cu", cubic=True)) for _ in range(6)] + [labelled(bulk("Ni", cubic=True)) for _ in range(2)]
    data = FrameDataset(frames, 4.0)
    drawn = [frame for batch in data.sampler(batch_atoms=8, seed=0, balance=True).epoch(0) for frame in batch]
    assert sum(frame < 6 for frame in drawn) == sum(frame >= 6 for frame in drawn) == 6


def test_odd_numbers_of_electrons_are_of_molecules_alone() -> None:
    ammonia, copper = Atoms("NH3", 2.0 * np.eye(4, 3)), bulk("Cu")
    assert not FrameDataset([labelled(ammonia), labelled(copper)], 4.0).odd_electrons()
    assert FrameDataset([labelled(ammonia), labelled(ammonia[:3])], 4.0).odd_electrons()


def test_closest_distance_of_each_pair_of_elements() -> None:
    dimer = labelled(Atoms("CuNi", [[0, 0, 0], [0, 0, 2.25]]))
    pair = labelled(Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]]))
    min_distance = FrameDataset([dimer, pair], 4.0).min_distance()
    assert min_distance == pytest.approx({(28, 29): 2.25, (29, 29): 2.5})
