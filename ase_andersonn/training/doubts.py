"""What speaks against labels: forces unlike those of all other frames, and quantities of which little was learnt."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

from ase_andersonn.models.base import EnergyModel

from .frames import LabelKeys, labels_of
from .metrics import EvaluationReport

logger = logging.getLogger(__name__)

UNLIKE = 30.0
"""Times the forces of nine frames in ten."""
SMALL = 10.0
"""eV/Å; forces up to this are never unlike others, as where most frames are at rest."""
MOST_NAMED = 5
LITTLE = 0.7
"""Error over the spread of the labels from which a run has learnt little; to know the mean alone makes it 1."""
FEWEST = 10
"""Labels from which their spread is known."""


def warn_of_unlike(frames: Sequence[Atoms], keys: LabelKeys) -> None:
    """Of frames whose root mean square force is above `SMALL` and more than `UNLIKE` times that of nine in ten."""
    labelled = [(i, forces) for i, atoms in enumerate(frames) if (forces := labels_of(atoms, keys).forces) is not None]
    if not labelled:
        return
    size = np.array([np.sqrt(np.square(forces).mean()) for _, forces in labelled])
    usual = float(np.quantile(size, 0.9, method="lower"))
    order = [k for k in np.argsort(-size) if size[k] > max(UNLIKE * usual, SMALL)]
    if not order:
        return
    named = ", ".join(
        f"{frames[labelled[k][0]].get_chemical_formula()} ({size[k]:.3g} eV/Å)" for k in order[:MOST_NAMED]
    )
    logger.warning(
        "%d of %d frames have forces more than %g times as large as those of nine in ten (%.3g eV/Å): %s%s. "
        "Are they in eV/Å, and did these calculations end well?",
        len(order),
        len(labelled),
        UNLIKE,
        usual,
        named,
        ", …" if len(order) > MOST_NAMED else "",
    )


def unexplained(model: EnergyModel, result: EvaluationReport) -> dict[str, float]:
    """`RMSE / spread of the labels` of energy and forces, 1 for a model that knows but their mean.

    The spread is the standard deviation of the energies per atom besides the reference energies, and the root mean
    square of the forces. Quantities with fewer than `FEWEST` labels are left out, and such without spread.

    Args:
        model: the model.
        result: what it says of frames.
    """
    labels, systems = result.labelled, result.systems
    species = model.species(systems.numbers.to(next(model.parameters()).device))
    besides = labels.energy / systems.n_per_system - systems.mean(model.reference_energies(species).detach().cpu())
    energy = besides[~besides.isnan()]
    forces = labels.forces[~labels.forces.isnan()]
    spread = {"energy": energy - energy.mean(), "forces": forces}
    shares = {}
    for name, values in spread.items():
        size = values.square().mean().sqrt().item()
        if len(values) >= FEWEST and size > torch.finfo(torch.float32).eps:
            shares[name] = getattr(result.errors["all"], name).rmse / size
    return shares


def warn_of_little(shares: dict[str, float]) -> None:
    """Of quantities of which more than `LITTLE` is unexplained; see `unexplained`."""
    little = [f"{name} {100 * share:.0f} %" for name, share in shares.items() if share > LITTLE]
    if little:
        logger.warning(
            "little was learnt: of the labels' own spread the errors on the validation frames are %s. "
            "Train longer, or look at the labels: are the forces minus the gradients of these energies, in eV and Å?",
            ", ".join(little),
        )
