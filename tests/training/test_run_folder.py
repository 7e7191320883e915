"""The folder of a training run: one process at a time, and nothing damaged or changed is resumed from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from damage import accidents
from test_lock import held_by_another
from typer.testing import CliRunner

from ase_andersonn.cli import app
from ase_andersonn.config import write_config
from ase_andersonn.lock import InUseError
from ase_andersonn.training import TrainConfig, train, train_committee
from ase_andersonn.training.classification import ClassifierTrainConfig, train_classifier
from ase_andersonn.training.classification.data import LabelledSamples
from ase_andersonn.training.classification.table import Entry
from ase_andersonn.training.potential_trainer import Trainer

SMALL_CLASSIFIER = {
    "cutoff": 3.5, "n_radial": 4, "l_max": 1, "n_channels": 8, "n_element": 8, "n_edge": 8, "n_token": 8, "n_heads": 2,
    "n_hidden": 16, "n_pooled": 8, "n_features": 8,
}  # fmt: skip


@pytest.fixture
def classifier_config(tmp_path: Path) -> ClassifierTrainConfig:
    frames = [bulk("Cu", a=3.6 + 0.02 * k) if k % 2 else bulk("NaCl", "rocksalt", 5.6 + 0.02 * k) for k in range(10)]
    for k, atoms in enumerate(frames):
        atoms.info["value"] = 5.0 * (k % 2 == 0)
    write(tmp_path / "crystals.extxyz", frames)
    return ClassifierTrainConfig(
        train=(str(tmp_path / "crystals.extxyz"),),
        output=str(tmp_path / "run"),
        validation_fraction=0.2,
        split_by="none",
        model=SMALL_CLASSIFIER,
        batch_size=4,
        max_epochs=1,
        device="cpu",
        compile=False,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_second_run_in_the_folder_is_refused_at_once_and_changes_nothing(config: TrainConfig, tmp_path: Path) -> None:
    """While the first is between two steps; the second is of the same process here, which makes no difference."""
    config = replace(config, max_epochs=2, checkpoint_minutes=0.0)
    other = {"progress_bar": False}
    attempts: list[Any] = [
        lambda: train(config, **other),
        lambda: train(config, resume=True, **other),
        lambda: train(config, fresh=True, **other),
        lambda: train_committee(config, 2, fresh=True),
        lambda: Trainer(config, **other).fit(),
    ]
    tried = []

    class Busy(Trainer):
        def step(self, indices: list[int]) -> None:
            super().step(indices)
            if self.position.epoch == 1 and not tried:
                before = files(self.folder)
                for attempt in attempts:
                    with pytest.raises(InUseError, match=rf"the run folder {self.folder} is in use by process \d+ on "):
                        attempt()
                    tried.append(attempt)
                assert files(self.folder) == before

    Busy(config, **other).fit()
    assert tried == attempts
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "run" / ".lock").exists()


def test_the_command_names_the_process_that_trains(
    config: TrainConfig, classifier_config: ClassifierTrainConfig, tmp_path: Path
) -> None:
    write_config(config, tmp_path / "config.yaml")
    write_config(classifier_config, tmp_path / "classifier.yaml")
    (tmp_path / "run").mkdir()
    with held_by_another(tmp_path / "run") as process:
        for command in (["train", "config.yaml"], ["train-classifier", "classifier.yaml"]):
            for more in ([], ["--resume"], ["--fresh"], ["--seeds", "2"]):
                result = CliRunner().invoke(app, [command[0], str(tmp_path / command[1]), *more])
                assert result.exit_code == 1
                assert f"is in use by process {process.pid} on " in result.output
        process.kill()
        process.wait()
        assert train(replace(config, max_epochs=1), progress_bar=False).finished


def refuse_damage(checkpoint: Path, resume: Any) -> None:
    for damage in accidents(checkpoint, flips=16):
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors is no checkpoint .* --fresh") as caught:
            resume()
        assert type(caught.value) is ValueError, damage
    resume()


def test_nothing_damaged_is_resumed_from(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, max_epochs=1)
    train(config, progress_bar=False)
    trainer = Trainer(config, progress_bar=False)
    refuse_damage(tmp_path / "run" / "checkpoint.safetensors", trainer.resume)
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("0", "1"))
    with pytest.raises(ValueError, match=r"metrics\.jsonl is not as the run left it"):
        train(config, resume=True)
    metrics.unlink()
    assert train(replace(config, max_epochs=2), resume=True).finished
    assert [record["epoch"] for record in trainer.log.read()] == [2]


def test_nothing_damaged_is_resumed_from_by_a_classifier(
    classifier_config: ClassifierTrainConfig, tmp_path: Path
) -> None:
    trainer = train_classifier(classifier_config, progress_bar=False)
    refuse_damage(tmp_path / "run" / "checkpoint.safetensors", trainer.resume)
    assert not (tmp_path / "run" / ".lock").exists()


def test_frames_of_which_only_the_periodicity_changed_are_others(config: TrainConfig) -> None:
    """The molecules' boxes are large enough that their neighbours are the same."""
    frames = read(config.train[0], ":")
    for atoms in frames:
        if 7 in atoms.numbers:
            atoms.center(vacuum=8.0)
    write(config.train[0], frames)
    config = replace(config, max_epochs=1)
    train(config, progress_bar=False)
    for atoms in frames:
        atoms.pbc = atoms.pbc | (7 in atoms.numbers)
    write(config.train[0], frames)
    with pytest.raises(ValueError, match="other data"):
        train(config, resume=True)


def test_the_fingerprint_of_labelled_structures_sees_all_that_is_learnt_from() -> None:
    class Model:
        def sample(self, atoms: Atoms) -> Atoms:
            return atoms

        def size(self, atoms: Atoms) -> tuple[int, int]:
            return len(atoms), 1

    def digest(*entries: Entry) -> str:
        return LabelledSamples.of(Model(), entries, progress_bar=False).digest  # type: ignore[arg-type]

    atoms, nan = bulk("Cu"), float("nan")
    open_, moved = atoms.copy(), atoms.copy()
    open_.pbc = False
    moved.positions += 1e-9
    first = Entry(atoms, 0, 0.5, "")
    others = [
        (replace(first, atoms=open_),),
        (replace(first, atoms=moved),),
        (replace(first, target=1),),
        (replace(first, value=0.25),),
        (replace(first, value=nan),),
        (first, first),
    ]
    assert digest(first) == digest(replace(first, where="elsewhere"))
    assert len({digest(first), *(digest(*entries) for entries in others)}) == 1 + len(others)
