"""What speaks against labels: they are unlike all others, or little was learnt of them."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms

from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.convert import TOO_CLOSE
from ase_andersonn.training.data.dataset import FrameDataset, shortest_share
from ase_andersonn.training.data.labels import LabelKeys, labels_of
from ase_andersonn.training.metrics import EvaluationReport
from ase_andersonn.training.reference import reference_energies

logger = logging.getLogger(__name__)

UNLIKE = 30.0
"""Times the forces of nine frames in ten."""
SMALL = 10.0
"""eV/Å; forces up to this are never unlike others, as where most frames are at rest."""
MOST_NAMED = 5
LITTLE = 0.7
"""Error over the spread of the labels from which a run has learnt little; to know the mean alone makes it 1."""
NOTHING = 10.0
"""Such an error over the spread is that of weights that diverged."""
ENOUGH = 5
"""Epochs from which labels that are not learnt are doubted; before, any labels leave errors of their own spread."""
FEWEST = 10
"""Labels from which their spread is known, each component counted."""
NO_SPREAD = {"energy": 1e-3, "forces": 1e-2, "stress": 1e-4}
"""eV/atom, eV/Å, eV/Å³; a smaller spread is that of frames at rest, of which an error may be many times."""
FAR, FAR_ALONE = 1.0, 20.0
"""eV/atom; the second of one or two atoms, which lie above the others by their cohesion."""


def check_outliers(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> None:
    """Of labels that nothing else in the frames is like; the calculation behind them may have gone wrong.

    - root mean square forces above `SMALL` and more than `UNLIKE` times those of nine frames in ten;
    - energies, besides the elements' references, more than `FAR` and `UNLIKE` times as far from the median as nine in
      ten are.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: what they are called, as "validation ".
    """
    labels = [labels_of(atoms, keys) for atoms in frames]
    forces = [np.nan if of_one.forces is None else np.sqrt(np.square(of_one.forces).mean()) for of_one in labels]
    _warn(f"{kind}frames have forces more than %g times as large as", "eV/Å", frames, np.array(forces), SMALL)
    apart = f"{kind}frames have energies, besides the elements' own, more than %g times as far from the median as"
    least = np.array([FAR_ALONE if len(atoms) <= 2 else FAR for atoms in frames])
    _warn(apart, "eV/atom", frames, _from_the_median(frames, keys), least)


def check_overlaps(data: FrameDataset) -> None:
    """Of frames with two atoms nearer than any are; they take the repulsion away that keeps atoms apart."""
    shares = np.array([shortest_share(frame) for frame in data.data])
    clashing = np.flatnonzero(shares < TOO_CLOSE)
    if len(clashing):
        worst = clashing[shares[clashing].argsort()][:MOST_NAMED]
        logger.warning(
            "%d of %d training frames hold atoms nearer than %g times the sum of their covalent radii: %s times, "
            "counted from 0 among the training frames. If they are no collisions leave them out.",
            len(clashing),
            len(shares),
            TOO_CLOSE,
            ", ".join(f"frame {k}, {shares[k]:.2g}" for k in worst),
        )


def _warn(what: str, unit: str, frames: Sequence[Atoms], size: np.ndarray, least: np.ndarray | float) -> None:
    """Of frames whose `size`, nan where there is no label, is above `least` and `UNLIKE` times that of nine in ten."""
    known = np.flatnonzero(~np.isnan(size))
    if not len(known):
        return
    usual = float(np.quantile(size[known], 0.9, method="lower"))
    strange = size > np.maximum(UNLIKE * usual, least)
    order = [k for k in known[np.argsort(-size[known])] if strange[k]]
    if not order:
        return
    named = ", ".join(f"{k}, {frames[k].get_chemical_formula()} ({size[k]:.3g} {unit})" for k in order[:MOST_NAMED])
    logger.warning(
        "%d of %d %s those of nine in ten (%.3g %s), counted from 0: %s%s. "
        "Did these calculations end well, and are the labels in eV and Å?",
        len(order),
        len(known),
        what % UNLIKE,
        usual,
        unit,
        named,
        ", …" if len(order) > MOST_NAMED else "",
    )


def _from_the_median(frames: Sequence[Atoms], keys: LabelKeys) -> np.ndarray:
    """How far the energies lie from their median besides the references of the elements, eV/atom [n_frames]."""
    references = reference_energies(frames, keys=keys)
    besides = np.array(
        [
            np.nan if energy is None else energy / len(atoms) - np.mean([references[z] for z in atoms.numbers])
            for atoms in frames
            for energy in (labels_of(atoms, keys).energy,)
        ]
    )
    return np.abs(besides - (np.nanmedian(besides) if not np.isnan(besides).all() else 0.0))


def relative_rmse(model: EnergyModel, result: EvaluationReport) -> dict[str, float]:
    """`RMSE / spread of the labels` of energy, forces and stress, 1 for a model that knows but their mean.

    The spread is the standard deviation of the energies per atom besides the reference energies and of the stresses,
    and the root mean square of the forces. Quantities with fewer than `FEWEST` labels are left out, and such with less
    spread than `NO_SPREAD`.

    Args:
        model: the model.
        result: what it says of frames.
    """
    labels, systems = result.labelled, result.systems
    species = model.species(systems.numbers.to(next(model.parameters()).device))
    besides = labels.energy / systems.n_per_system - systems.mean(model.reference_energies(species).detach().cpu())
    energy = besides[~besides.isnan()]
    forces = labels.forces[~labels.forces.isnan()]
    stress = labels.stress[~labels.stress.isnan()]
    spread = {"energy": energy - energy.mean(), "forces": forces, "stress": stress - stress.mean()}
    shares = {}
    for name, values in spread.items():
        size = values.square().mean().sqrt().item()
        if len(values) >= FEWEST and size > NO_SPREAD[name]:
            shares[name] = getattr(result.errors["all"], name).rmse / size
    return shares


def check_learned(shares: Mapping[str, float], epoch: int, n_epochs: int) -> None:
    """Of quantities of which more than `LITTLE` is unexplained by the best epoch; see `relative_rmse`.

    Nothing is said against labels that were learnt for fewer than `ENOUGH` epochs.
    """
    if not any(share > LITTLE for share in shares.values()):
        return
    errors = ", ".join(f"{name} {100 * share:.3g} %" for name, share in shares.items())
    if n_epochs < ENOUGH:
        logger.info(
            "of the labels' own spread the errors on the validation frames are %s; %s too few to judge the labels by: "
            "train longer.",
            errors,
            "one epoch is" if n_epochs == 1 else f"{n_epochs} epochs are",
        )
        return
    logger.warning(
        "%s: of the labels' own spread the errors on the validation frames are %s, in the best epoch, %d. %s: are the "
        "forces minus the gradients of these energies, in eV and Å, and the stresses in eV/Å³?",
        "nothing was learnt" if min(shares.values()) > NOTHING else "little was learnt",
        errors,
        epoch,
        _advice(shares),
    )


def _advice(shares: Mapping[str, float]) -> str:
    if min(shares.values()) > NOTHING:
        return "Lower learning_rate, or look at the labels"
    if min(shares.values()) < LITTLE:
        return "Labels of one kind were learnt and others were not, so they may contradict each other"
    return "Train longer, or look at the labels"
