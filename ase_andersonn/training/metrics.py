"""Errors of a model on labelled frames: MAE and RMSE of energy per atom, forces and stress, overall and by element."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor

from ase_andersonn.backends import CompileMode, own_torch_state
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.committee import Committee
from ase_andersonn.potentials.interface import ConvergenceError, Settings
from ase_andersonn.properties import LABELS
from ase_andersonn.solvers.registry import AFTER_PICARD, solver_named

from .data.dataset import FrameDataset, LabelledBatch
from .data.labels import LabelKeys
from .data.targets import Systems, Targets, concatenate

ALL = "all"


@dataclass(frozen=True)
class Errors:
    """MAE and RMSE of one quantity, and the number of values they are means of. Both are nan where there are none."""

    mae: float
    rmse: float
    count: int


@dataclass(frozen=True)
class ErrorRow:
    """Errors of all frames, or of one element: of the forces on its atoms, and of the frames that hold it.

    Attributes:
        energy: eV/atom.
        forces: eV/Å, of the components.
        stress: eV/Å³, of the components.
    """

    energy: Errors
    forces: Errors
    stress: Errors


@dataclass(frozen=True)
class EvaluationReport:
    """Predictions of a model for labelled frames, beside the labels.

    Attributes:
        errors: by element symbol, and under "all".
        predicted: of all frames, in their order.
        labelled: likewise.
        systems: the frames.
        spread: of a committee the mean and the root mean square of its spreads, as they are in the calculator's
            `diagnostics`: of the energy, of each atom's forces (three components together), and of the stress.
    """

    errors: dict[str, ErrorRow]
    predicted: Targets
    labelled: Targets
    systems: Systems
    spread: ErrorRow | None = None


@own_torch_state()
def evaluate_dataset(
    model: EnergyModel | Committee,
    frames: Sequence[Atoms],
    *,
    keys: LabelKeys | None = None,
    batch_atoms: int = 500,
    tolerance: float = 1e-6,
    compile_mode: CompileMode = False,
) -> EvaluationReport:
    """Errors of a model on labelled frames.

    Args:
        model: the model, or a committee, whose answer is the mean of its members'.
        frames: structures with labels.
        keys: names of the labels.
        batch_atoms: atoms in a batch, at most.
        tolerance: energy tolerance of the equilibrium, eV/atom.
        compile_mode: "auto", True or False.

    Raises:
        ValueError: for frames with an element the model does not know, or without frames, and for a member that is no
            potential of atoms.
    """
    if not len(frames):
        raise ValueError("there are no frames to evaluate.")
    ask: dict[str, Any] = {"batch_atoms": batch_atoms, "tolerance": tolerance, "compile_mode": compile_mode}
    reports = []
    for member in model.members if isinstance(model, Committee) else [model]:
        if not isinstance(member, EnergyModel):
            raise ValueError(f"a {type(member).__name__} is no potential of atoms; only these are evaluated here.")
        reports.append(report(member, FrameDataset(frames, member.edge_cutoff, keys), **ask))
    return reports[0] if len(reports) == 1 else _mean(reports)


def _mean(reports: Sequence[EvaluationReport]) -> EvaluationReport:
    """Of the mean of the members' predictions, as `potentials.committee.mean`."""
    predictions = [(r.predicted.energy, r.predicted.forces, r.predicted.stress) for r in reports]
    predicted = Targets(*(torch.stack(values).mean(0) for values in zip(*predictions, strict=True)))
    labelled, systems = reports[0].labelled, reports[0].systems
    energies, forces, stresses = (torch.stack(values) for values in zip(*predictions, strict=True))
    spread = ErrorRow(
        _sizes(energies.std(0, correction=0) / systems.n_per_system),
        _sizes(forces.var(0, correction=0).sum(1).sqrt()),
        _sizes(stresses.std(0, correction=0)),
    )
    return EvaluationReport(error_table(predicted, labelled, systems), predicted, labelled, systems, spread)


def report(
    model: EnergyModel,
    dataset: FrameDataset,
    *,
    batch_atoms: int,
    tolerance: float,
    compile_mode: CompileMode,
    solver: str = Settings.solver,
) -> EvaluationReport:
    """As `evaluate_dataset`, of frames whose edges are known."""
    weights = next(model.parameters())
    batches = dataset.sampler(batch_atoms=batch_atoms, seed=0).ordered()
    parts = []
    for indices in batches:
        batch = dataset.batch(indices, device=weights.device, dtype=weights.dtype)
        with torch.no_grad():
            parts.append(_on_cpu(predict(model, batch, tolerance, compile_mode, solver), batch))
    frame = torch.tensor([i for indices in batches for i in indices])
    joined = _reorder(concatenate(parts), frame.argsort())
    return EvaluationReport(error_table(*joined), *joined)


def predict(
    model: EnergyModel,
    batch: LabelledBatch,
    tolerance: float,
    compile_mode: CompileMode,
    solver: str = Settings.solver,
) -> Targets:
    """Energy, forces and, where a frame has the label, stress.

    Raises:
        ConvergenceError: if an equilibrium was not reached.
    """
    stressed = bool((~batch.labels.stress.isnan()).any())
    out = evaluate(
        model,
        batch.graph,
        forces=True,
        stress=stressed,
        tol=tolerance,
        solver=solver_named(solver),
        picard=solver in AFTER_PICARD,
        compile=compile_mode,
    )
    if not bool(out.equilibrium.converged.all()):
        raise ConvergenceError(
            f"an equilibrium was not reached to the tolerance {tolerance:g} eV/atom; "
            "ask for a larger one, or for float64 where it is below 1e-12."
        )
    stress = torch.full_like(batch.labels.stress, torch.nan) if out.stress is None else out.stress
    if out.forces is None:
        raise RuntimeError("the model returned no forces although they were asked for.")
    return Targets(out.energy, out.forces, stress)


def error_table(predicted: Targets, labelled: Targets, systems: Systems) -> dict[str, ErrorRow]:
    """Errors under "all" and under the symbol of each element."""
    n = systems.n_per_system
    energy = predicted.energy / n, labelled.energy / n
    forces = predicted.forces, labelled.forces
    stress = predicted.stress, labelled.stress
    table = {ALL: ErrorRow(_errors(*energy), _errors(*forces), _errors(*stress))}
    for z in systems.numbers.unique().tolist():
        atoms = systems.numbers == z
        frames = systems.mean(atoms.double()) > 0
        kinds = ((energy, frames), (forces, atoms), (stress, frames))
        table[chemical_symbols[z]] = ErrorRow(*(_errors(found[rows], label[rows]) for (found, label), rows in kinds))
    return table


def _errors(predicted: Tensor, labelled: Tensor) -> Errors:
    """Of all labelled values: a prediction that is not a number is an error that is not a number."""
    known = ~labelled.isnan()
    values = (predicted - labelled)[known].double()
    if not values.numel():
        return Errors(float("nan"), float("nan"), 0)
    return Errors(values.abs().mean().item(), values.square().mean().sqrt().item(), values.numel())


def _sizes(values: Tensor) -> Errors:
    return _errors(values, torch.where(values.isnan(), torch.nan, 0.0))


def _on_cpu(predicted: Targets, batch: LabelledBatch) -> tuple[Targets, Targets, Systems]:
    def values(targets: Targets) -> Targets:
        return Targets(*(t.detach().cpu().double() for t in (targets.energy, targets.forces, targets.stress)))

    s = batch.systems
    systems = Systems(s.numbers.cpu(), s.system.cpu(), s.n_per_system.cpu(), s.volume.cpu().double())
    return values(predicted), values(batch.labels), systems


def _reorder(joined: tuple[Targets, Targets, Systems], order: Tensor) -> tuple[Targets, Targets, Systems]:
    predicted, labelled, systems = joined
    place = order.argsort()[systems.system]
    atoms = place.argsort(stable=True)

    def targets(t: Targets) -> Targets:
        return Targets(t.energy[order], t.forces[atoms], t.stress[order])

    sorted_systems = Systems(systems.numbers[atoms], place[atoms], systems.n_per_system[order], systems.volume[order])
    return targets(predicted), targets(labelled), sorted_systems


def as_numbers(errors: dict[str, ErrorRow]) -> dict[str, dict[str, dict[str, float]]]:
    """The table as JSON holds it, without the quantities that have no labels."""
    return {
        symbol: {label.name: asdict(getattr(row, label.name)) for label in LABELS if getattr(row, label.name).count}
        for symbol, row in errors.items()
    }
