"""A committee: several potentials whose mean is the answer, and whose spread says how far it is to be trusted.

    E = ⟨E_m⟩,    F = ⟨F_m⟩,    δE = √⟨(E_m − E)²⟩ / n_atoms,    δF_i = √⟨|F_m,i − F_i|²⟩

Members trained on the same data from different seeds agree where there were data, and differ elsewhere. The mean of
conservative forces is conservative.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import nn

from .potential import Evaluator, Potential, Settings


class Committee(Potential):
    """Several potentials as one.

    Args:
        members: potentials of the same elements.

    Attributes:
        card: the combinations of elements that every member knows, where all say which they know.

    Raises:
        ValueError: for fewer than two members, and for members of different elements.
    """

    def __init__(self, members: Sequence[Potential]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ValueError(f"a committee needs at least two members; {len(members)} was given.")
        known = [member.elements for member in members]
        if len(set(known)) > 1:
            names = "; ".join(", ".join(chemical_symbols[z] for z in elements) or "any" for elements in known)
            raise ValueError(f"the members of a committee need to know the same elements; these know {names}.")
        self.members = nn.ModuleList(members)
        self.elements, self.config = known[0], None
        self.reads_magmoms = any(member.reads_magmoms for member in members)
        first, *others = (member.card.get("combinations", []) for member in members)
        self.card = {"combinations": [c for c in first if all(c in other for other in others)]}

    def evaluator(self, settings: Settings) -> Evaluator:
        """See `Potential.evaluator`."""
        return self.evaluator_of(lambda member: member.evaluator(settings))

    def evaluator_of(self, made: Callable[[Any], Evaluator]) -> "CommitteeEvaluator":
        """What applies this committee, from what applies each of its members."""
        return CommitteeEvaluator([made(member) for member in self.members])


class CommitteeEvaluator(Evaluator):
    """The mean of what several evaluators say of a structure.

    Args:
        evaluators: one a member.

    Attributes:
        diagnostics: standard deviations over the members of the energy (`energy_spread`, eV/atom) and, where they were
            asked for, of the forces (`forces_spread` [n_atoms], eV/Å) and of the stress (`stress_spread` [6], eV/Å³);
            after `calculate_many` a list of each, one entry a structure; and what the members say (`members`).
    """

    def __init__(self, evaluators: Sequence[Evaluator]) -> None:
        self.evaluators = list(evaluators)
        self.diagnostics: dict[str, Any] = {}

    def calculate(self, atoms: Atoms, *, forces: bool, stress: bool, changes: Collection[str]) -> dict[str, Any]:
        """See `Evaluator.calculate`."""
        self.diagnostics = {}
        answers = [e.calculate(atoms, forces=forces, stress=stress, changes=changes) for e in self.evaluators]
        self._describe(spread(answers))
        return mean(answers)

    def calculate_many(
        self, structures: Sequence[Atoms], *, forces: bool, stress: bool, batch_atoms: int
    ) -> list[dict[str, Any]]:
        """See `Evaluator.calculate_many`."""
        self.diagnostics = {}
        ask: dict[str, Any] = {"forces": forces, "stress": stress, "batch_atoms": batch_atoms}
        answers = list(zip(*(e.calculate_many(structures, **ask) for e in self.evaluators), strict=True))
        spreads = [spread(of_one) for of_one in answers]
        names = {name for of_one in spreads for name in of_one}
        self._describe({name: [of_one.get(name) for of_one in spreads] for name in sorted(names)})
        return [mean(of_one) for of_one in answers]

    def propose(self, atoms: Atoms, touched: NDArray[np.int64]) -> float:
        """See `Evaluator.propose`."""
        energies: list[float] = []
        try:
            energies.extend(evaluator.propose(atoms, touched) for evaluator in self.evaluators)
        except BaseException:
            for evaluator in self.evaluators[: len(energies)]:
                evaluator.settle(False)
            raise
        self._describe({"energy_spread": float(np.std(energies)) / max(len(atoms), 1)})
        return float(np.mean(energies))

    def settle(self, accepted: bool) -> None:
        """See `Evaluator.settle`."""
        for evaluator in self.evaluators:
            evaluator.settle(accepted)

    def reset(self) -> None:
        """See `Evaluator.reset`."""
        self.diagnostics = {}
        for evaluator in self.evaluators:
            evaluator.reset()

    def _describe(self, spreads: Mapping[str, Any]) -> None:
        self.diagnostics = {**spreads, "members": [evaluator.diagnostics for evaluator in self.evaluators]}


def mean(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """ASE's results, averaged."""
    found = {name: np.mean([answer[name] for answer in answers], axis=0) for name in answers[0]}
    return {name: float(value) if value.ndim == 0 else value for name, value in found.items()}


def spread(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Standard deviations of ASE's results; see `CommitteeEvaluator`."""
    energies, n_atoms = [answer["energy"] for answer in answers], len(answers[0]["energies"])
    found: dict[str, Any] = {"energy_spread": float(np.std(energies)) / max(n_atoms, 1)}
    if "forces" in answers[0]:
        found["forces_spread"] = np.sqrt(np.var([answer["forces"] for answer in answers], axis=0).sum(-1))
    if "stress" in answers[0]:
        found["stress_spread"] = np.std([answer["stress"] for answer in answers], axis=0)
    return found
