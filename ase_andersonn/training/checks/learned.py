"""Errors on the validation frames relative to the standard deviation of the labels."""

from collections.abc import Mapping

from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.properties import LABELS
from ase_andersonn.training.metrics import EvaluationReport

POOR_RELATIVE_RMSE = 0.7
"""RMSE over the standard deviation of the labels from which little was learned; predicting the mean gives 1."""
DIVERGED_RELATIVE_RMSE = 10.0
"""The same, of weights that diverged."""
MIN_EPOCHS = 5
"""Epochs after which the errors are informative of the labels."""
MIN_LABELS = 10
"""Labels from which their standard deviation is known, each component counted."""


def relative_rmse(model: EnergyModel, result: EvaluationReport) -> dict[str, float]:
    """`RMSE / standard deviation of the labels` of energy, forces and stress, 1 for a model that predicts the mean.

    The standard deviation is that of the energies per atom less the reference energies and of the stresses; of the
    forces it is the root mean square. Left out are quantities with fewer than `MIN_LABELS` labels or a standard
    deviation below `Property.min_std`.

    Args:
        model: the model.
        result: its predictions for labelled frames.
    """
    labels, systems = result.labelled, result.systems
    species = model.species(systems.numbers.to(next(model.parameters()).device))
    besides = labels.energy / systems.n_per_system - systems.mean(model.reference_energies(species).detach().cpu())
    energy = besides[~besides.isnan()]
    forces = labels.forces[~labels.forces.isnan()]
    stress = labels.stress[~labels.stress.isnan()]
    deviations = {"energy": energy - energy.mean(), "forces": forces, "stress": stress - stress.mean()}
    found = {}
    for label in LABELS:
        values = deviations[label.name]
        std = values.square().mean().sqrt().item()
        if len(values) >= MIN_LABELS and std > label.min_std:
            found[label.name] = getattr(result.errors["all"], label.name).rmse / std
    return found


def check_learned(relative: Mapping[str, float], epoch: int, n_epochs: int) -> list[str]:
    """A warning where a label was not learned by the best epoch, in a run of `MIN_EPOCHS` at least.

    Args:
        relative: see `relative_rmse`.
        epoch: the best one.
        n_epochs: of the run.
    """
    if n_epochs < MIN_EPOCHS or not any(rmse > POOR_RELATIVE_RMSE for rmse in relative.values()):
        return []
    best = min(relative.values())
    amount = "nothing was learned" if best > DIVERGED_RELATIVE_RMSE else "little was learned"
    errors = ", ".join(f"{name} {100 * rmse:.3g} %" for name, rmse in relative.items())
    if best > DIVERGED_RELATIVE_RMSE:
        advice = "Lower learning_rate, or look at the labels"
    elif best < POOR_RELATIVE_RMSE:
        advice = "Labels of one kind were learned and others were not, so they may contradict each other"
    else:
        advice = "Train longer, or look at the labels"
    return [
        f"{amount}: relative to the standard deviation of the labels, the errors on the validation frames are {errors},"
        f" in the best epoch, {epoch}. {advice}: are the forces minus the gradients of these energies, in eV and Å, and"
        " the stresses in eV/Å³?"
    ]
