"""A committee: several potentials whose mean is the answer, and whose spread says how far it is to be trusted.

    E = ⟨E_m⟩,    F = ⟨F_m⟩,    δE = √⟨(E_m − E)²⟩ / n_atoms,    δF_i = √⟨|F_m,i − F_i|²⟩

Members trained on the same data from different seeds agree where there were data, and differ elsewhere. The mean of
conservative forces is conservative. With tiles each member chooses lengths that were not given for itself.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from itertools import combinations
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import nn

from .interface import Evaluator, Potential


class Committee(Potential):
    """Several potentials as one.

    Args:
        members: potentials of the same elements; the members of a committee among them count as its own.

    Attributes:
        card: training domain that all members share (see `training_domain`), where all have one.

    Raises:
        ValueError: for fewer than two members, a model that is there twice, and members of different elements.
    """

    members: nn.ModuleList

    def __init__(self, members: Sequence[Potential]) -> None:
        super().__init__()
        nested = (member.members if isinstance(member, Committee) else [member] for member in members)
        members = [cast(Potential, member) for several in nested for member in several]
        if len(members) < 2:
            raise ValueError(f"a committee needs at least two members; {len(members)} was given.")
        known = [member.elements for member in members]
        if len(set(known)) > 1:
            names = "; ".join(", ".join(chemical_symbols[z] for z in elements) or "any" for elements in known)
            raise ValueError(f"the members of a committee need to know the same elements; these know {names}.")
        for one, other in combinations(members, 2):
            if _same(one, other):
                raise ValueError("two members of the committee are the same model, so their spread would say nothing.")
        self.members = nn.ModuleList(members)
        self.elements, self.config = known[0], None
        self.reads_magmoms = any(member.reads_magmoms for member in members)
        self.card = {}
        if all("combinations" in member.card for member in members):
            known_by_each = ({frozenset(c) for c in member.card["combinations"]} for member in members)
            common = reduce(lambda some, others: {a & b for a in some for b in others}, known_by_each)
            self.card["combinations"] = sorted(map(sorted, common))
        if all("min_atoms" in member.card for member in members):
            self.card["min_atoms"] = max(member.card["min_atoms"] for member in members)
        if all("odd_electrons" in member.card for member in members):
            self.card["odd_electrons"] = all(member.card["odd_electrons"] for member in members)
        if all("periodic" in member.card for member in members):
            self.card["periodic"] = [
                kind for kind in (False, True) if all(kind in member.card["periodic"] for member in members)
            ]


class CommitteeEvaluator(Evaluator):
    """The mean of what several evaluators say of a structure.

    Args:
        evaluators: one a member.

    Attributes:
        diagnostics: standard deviations over the members, `√(Σ (x − mean)² / n)`, of the energy (`energy_std`,
            eV/atom) and, where they were asked for, of the forces (`forces_std` [n_atoms], eV/Å) and of the stress
            (`stress_std` [6], eV/Å³); after `calculate_many` a list of each, one entry a structure; the largest
            estimated error of a member's energy (`energy_error`, eV/atom), the largest `extrapolation` of a member of
            each atom where all have it, after `calculate_many` a list of it, how they run (`backend`), and what the
            members say (`members`).
    """

    def __init__(self, evaluators: Sequence[Evaluator]) -> None:
        self.evaluators = list(evaluators)
        self.diagnostics: dict[str, Any] = {}

    def calculate(self, atoms: Atoms, *, forces: bool, stress: bool, changes: Collection[str]) -> dict[str, Any]:
        """See `Evaluator.calculate`."""
        self.diagnostics = {}
        try:
            answers = [e.calculate(atoms, forces=forces, stress=stress, changes=changes) for e in self.evaluators]
        except BaseException:
            self.reset()  # those after it have not seen the changes
            raise
        self._describe(spread(answers, len(atoms)))
        return mean(answers)

    def calculate_many(
        self, structures: Sequence[Atoms], *, forces: bool, stress: bool, batch_atoms: int
    ) -> list[dict[str, Any]]:
        """See `Evaluator.calculate_many`."""
        self.diagnostics = {}
        ask: dict[str, Any] = {"forces": forces, "stress": stress, "batch_atoms": batch_atoms}
        answers = list(zip(*(e.calculate_many(structures, **ask) for e in self.evaluators), strict=True))
        spreads = [spread(of_one, len(atoms)) for of_one, atoms in zip(answers, structures, strict=True)]
        names = {name for of_one in spreads for name in of_one}
        self._describe({name: [of_one.get(name) for of_one in spreads] for name in sorted(names)})
        return [mean(of_one) for of_one in answers]

    def trial_energy(self, atoms: Atoms, changed: NDArray[np.int64]) -> float:
        """See `Evaluator.trial_energy`."""
        energies: list[float] = []
        try:
            for evaluator in self.evaluators:
                energies += [evaluator.trial_energy(atoms, changed)]
        except BaseException:
            for evaluator in self.evaluators[: len(energies)]:
                evaluator.commit(False)
            raise
        self._describe({"energy_std": float(np.std(energies)) / len(atoms)})
        return float(np.mean(energies))

    def commit(self, accepted: bool) -> None:
        """See `Evaluator.commit`."""
        for evaluator in self.evaluators:
            evaluator.commit(accepted)

    def reset(self) -> None:
        """See `Evaluator.reset`."""
        self.diagnostics = {}
        for evaluator in self.evaluators:
            evaluator.reset()

    def _describe(self, spreads: Mapping[str, Any]) -> None:
        members = [evaluator.diagnostics for evaluator in self.evaluators]
        found: dict[str, Any] = {"backend": members[0].get("backend", ""), "members": members}
        if errors := [member["energy_error"] for member in members if "energy_error" in member]:
            found["energy_error"] = max(errors)
        scores = [member["extrapolation"] for member in members if "extrapolation" in member]
        if len(scores) == len(members):
            several = isinstance(scores[0], list)
            found["extrapolation"] = (
                [np.max(of_one, axis=0) for of_one in zip(*scores, strict=True)] if several else np.max(scores, axis=0)
            )
        self.diagnostics = {**spreads, **found}


def _same(one: Potential, other: Potential) -> bool:
    """Whether two potentials have the same weights."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def mean(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """ASE's results, averaged; those that all members have."""
    names = [name for name in answers[0] if all(name in answer for answer in answers)]
    found = {name: np.mean([answer[name] for answer in answers], axis=0) for name in names}
    return {name: float(value) if value.ndim == 0 else value for name, value in found.items()}


def spread(answers: Sequence[Mapping[str, Any]], n_atoms: int) -> dict[str, Any]:
    """Standard deviations of ASE's results; see `CommitteeEvaluator`."""
    energies = [answer["energy"] for answer in answers]
    found: dict[str, Any] = {"energy_std": float(np.std(energies)) / n_atoms}
    if "forces" in answers[0]:
        found["forces_std"] = np.sqrt(np.var([answer["forces"] for answer in answers], axis=0).sum(-1))
    if "stress" in answers[0]:
        found["stress_std"] = np.std([answer["stress"] for answer in answers], axis=0)
    return found
