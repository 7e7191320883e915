"""What moves propose, without sampling: probabilities of all proposals, counted out, and that they are symmetric."""

import itertools
import math

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from dice import Script, outcomes
from mc_systems import Energy, Ising, Sites, lattice

from ase_andersonn.mc import (
    CellChange,
    Displacement,
    Exchange,
    MetropolisMC,
    SpeciesSwap,
    SpinFlip,
    Sublattice,
    Transmutation,
    VolumeChange,
)

T = 300.0


def simulation(symbols, move, **kwargs):
    n = len(Atoms(symbols))
    positions = 2.0 * np.arange(3 * n).reshape(n, 3)
    atoms = Atoms(symbols, positions=positions, cell=[6.0, 7.0, 8.0], pbc=True, magmoms=np.arange(n) % 3 - 1.0)
    atoms.set_constraint(kwargs.pop("constraint", None))
    if isinstance(move, Exchange):
        atoms.set_initial_magnetic_moments(np.zeros(n))
    atoms.calc = Energy(lambda a: 0.0)
    return MetropolisMC(atoms, T, move, seed=0, **kwargs)


def numbers(atoms):
    return tuple(atoms.numbers.tolist())


def matrix(move, states, n_random, grid):
    """q(x -> x') over arrangements of species, each row from a simulation of its own."""
    rows = {}
    for state in states:
        mc = simulation(state, move)
        rows[state] = outcomes(mc.context, mc.moves[0], numbers, n_random, grid)
    return rows


def assert_even(row, n):
    """n outcomes, each as likely."""
    assert len(row) == n
    np.testing.assert_allclose(list(row.values()), 1.0 / n, atol=1e-12)


def assert_symmetric(rows):
    for x, row in rows.items():
        assert sum(row.values()) == pytest.approx(1.0, abs=1e-12)
        for y, q in row.items():
            assert rows[y][x] == pytest.approx(q, abs=1e-12), (x, y)


@pytest.mark.parametrize("symbols", ["Cu2Ni", "Cu2NiAu", "Cu2Ni2"])
def test_swaps(symbols):
    """A pair of species, each as likely, and then one atom of each: q = 1 / (pairs n_a n_b)."""
    states = sorted(set(itertools.permutations(numbers(Atoms(symbols)))))
    rows = matrix(SpeciesSwap(), states, 4, 6)
    assert_symmetric(rows)
    kinds = {z: states[0].count(z) for z in states[0]}
    pairs = len(kinds) * (len(kinds) - 1) / 2
    for x, row in rows.items():
        assert x not in row
        for y, q in row.items():
            i, j = np.flatnonzero(np.array(x) != y)
            assert q == pytest.approx(1.0 / (pairs * kinds[x[i]] * kinds[x[j]]), abs=1e-12)


def test_swaps_of_some_species_and_some_atoms():
    states = sorted(set(itertools.permutations(numbers(Atoms("Cu2NiAu")))))
    move = SpeciesSwap(["Cu", "Ni"], indices=[0, 1, 3])
    states = [x for x in states if {29, 28} <= {x[0], x[1], x[3]}]
    rows = matrix(move, states, 4, 2)
    assert_symmetric(rows)
    for x, row in rows.items():
        assert all(y[2] == x[2] and y.index(79) == x.index(79) for y in row)


@pytest.mark.parametrize("indices", [None, [0, 2]])
def test_transmutations(indices):
    """An atom, each as likely, becomes one of the other species, each as likely; atoms of other elements stay."""
    species = {"Cu": 0.0, "Ni": 0.1, "Au": -0.1}
    codes = (29, 28, 79)
    move = Transmutation(species, indices=indices)
    states = [(a, 47, b, c) for a, b, c in itertools.product(codes, repeat=3)]
    rows = matrix(move, states, 2, 6)
    assert_symmetric(rows)
    mobile = [0, 2, 3] if indices is None else indices
    for x, row in rows.items():
        assert_even(row, 2 * len(mobile))
        assert all(y[1] == 47 and sum(a != b for a, b in zip(x, y, strict=True)) == 1 for y in row)


@pytest.mark.parametrize(("indices", "mobile"), [(None, [0, 2, 3, 5]), ([0, 1, 3], [0, 3])])
def test_flips(indices, mobile):
    """One of the atoms with a spin, each as likely; -1, 0 and 1 in turn."""
    mc = simulation("Fe6", SpinFlip(indices))

    def state_of(atoms):
        return tuple(atoms.get_initial_magnetic_moments().tolist())

    before = state_of(mc.atoms)
    found = outcomes(mc.context, mc.moves[0], state_of, 1, 12)
    expected = {tuple(-m if k == i else m for k, m in enumerate(before)) for i in mobile}
    assert set(found) == expected
    assert_even(found, len(mobile))


def test_lists_follow_accepted_swaps_and_transmutations():
    """After many accepted moves the atoms are still chosen evenly."""
    moves = [SpeciesSwap(), Transmutation({"Cu": 0.0, "Ni": 0.0, "Au": 0.0})]
    mc = simulation("Cu2Ni2Au2", moves)
    for _ in range(20):
        mc.run(10)
        present = {z: int((mc.atoms.numbers == z).sum()) for z in (28, 29, 79)}
        assert mc.context.by_species().counts() == {z: n for z, n in present.items() if n}
        assert_even(outcomes(mc.context, mc.moves[1], numbers, 2, 6), 12)
        for number, atoms in mc.context.by_species().members.items():
            assert sorted(atoms) == np.flatnonzero(mc.atoms.numbers == number).tolist()


@pytest.mark.parametrize("constraint", [None, FixAtoms([1]), FixCartesian(1, (True, False, True))])
def test_displacements(constraint):
    """r' - r = step (2 u - 1) of one atom, each free one as likely, and not along what is held."""
    mc = simulation("Ar3", Displacement(0.25), constraint=constraint)
    context, (move,), before = mc.context, mc.moves, mc.atoms.positions.copy()
    u = np.array([0.1, 0.4, 0.95])
    moved = []
    for pick in (np.arange(6) + 0.5) / 6:
        back_and_forth = []
        for numbers_ in (u, 1.0 - u):
            context.rng = Script([pick, *numbers_])
            trial = move.propose(context)
            assert trial.log_ratio == 0.0
            back_and_forth.append(mc.atoms.positions - before)
            move.undo(context, trial)
            np.testing.assert_array_equal(mc.atoms.positions, before)
        np.testing.assert_allclose(back_and_forth[0], -back_and_forth[1], atol=1e-14)
        (atom,) = trial.changed
        expected = 0.25 * (2.0 * u - 1.0)
        if atom == 1 and constraint is not None:
            expected = expected * [0.0, 1.0, 0.0]
        np.testing.assert_allclose(back_and_forth[0][atom], expected, atol=1e-14)
        assert np.count_nonzero(back_and_forth[0].any(1)) == 1
        moved.append(int(atom))
    assert set(moved) == ({0, 2} if isinstance(constraint, FixAtoms) else {0, 1, 2})
    assert len({moved.count(atom) for atom in moved}) == 1


@pytest.mark.parametrize("move", [VolumeChange(0.01, step=0.4), CellChange(0.01, step=0.2)])
def test_cell_changes_are_undone_by_those_of_the_opposite_numbers(move):
    """h' = h exp(e): 1 - u leads back, so both ways are as likely in ln V and strain; scaled positions stay."""
    mc = simulation("Ar3", move)
    context, (made,) = mc.context, mc.moves
    cell, positions = mc.atoms.cell.array.copy(), mc.atoms.positions.copy()
    scaled = mc.atoms.get_scaled_positions(wrap=False)
    u = np.array([0.9, 0.3, 0.55, 0.2, 0.6, 0.75])[: 1 if isinstance(move, VolumeChange) else 6]
    context.rng = Script([*u, *(1.0 - u)])
    there = made.propose(context)
    steps = move.step * (2.0 * u - 1.0)
    grown = float(steps[:3].sum())
    assert math.log(mc.atoms.get_volume() / np.linalg.det(cell)) == pytest.approx(grown, abs=1e-12)
    np.testing.assert_allclose(mc.atoms.get_scaled_positions(wrap=False), scaled, atol=1e-12)
    strained = np.linalg.solve(cell, mc.atoms.cell.array)
    if isinstance(move, VolumeChange):
        np.testing.assert_allclose(strained, math.exp(grown / 3.0) * np.eye(3), atol=1e-14)
    else:
        xx, yy, zz, yz, xz, xy = steps
        values, vectors = np.linalg.eigh(strained)
        log = (vectors * np.log(values)) @ vectors.T
        np.testing.assert_allclose(log, [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], atol=1e-12)
    assert there.changed.tolist() == [0, 1, 2]
    back = made.propose(context)
    assert back.log_ratio != 0.0
    np.testing.assert_allclose(mc.atoms.cell.array, cell, atol=1e-12)
    np.testing.assert_allclose(mc.atoms.positions, positions, atol=1e-12)
    made.undo(context, back)
    made.undo(context, there)
    np.testing.assert_array_equal(mc.atoms.cell.array, cell)
    np.testing.assert_array_equal(mc.atoms.positions, positions)


def test_components_of_the_cell_that_are_masked_stay():
    mc = simulation("Ar3", CellChange(step=0.2, mask=[0, 0, 1, 0, 1, 0]))
    mc.context.rng = Script([0.9, 0.3, 0.55, 0.2, 0.6, 0.75])
    cell = mc.atoms.cell.array.copy()
    mc.moves[0].propose(mc.context)
    values, vectors = np.linalg.eigh(np.linalg.solve(cell, mc.atoms.cell.array))
    log = (vectors * np.log(values)) @ vectors.T
    np.testing.assert_allclose(log, [[0, 0, 0.04], [0, 0, 0], [0.04, 0, 0.02]], atol=1e-12)


def test_exchanges():
    """Half of the attempts insert, at the fractions drawn; the others delete one of those that are free, each alike."""
    mc = simulation("Ar3Cu", Exchange("Ar", -0.2), constraint=FixAtoms([1]))
    context, (move,), before = mc.context, mc.moves, mc.atoms.positions.copy()
    deleted = []
    for first, second in itertools.product([0.25, 0.75], [0.1, 0.4, 0.6, 0.9]):
        context.rng = Script([first, second, 0.5, 0.75])
        trial = move.propose(context)
        if first < 0.5:
            np.testing.assert_allclose(mc.atoms.positions[-1], [6.0 * second, 3.5, 6.0])
            assert mc.atoms.symbols.formula.format() == "Ar3CuAr"
        else:
            (gone,) = (i for i in range(4) if not (before[i] == mc.atoms.positions).all(1).any())
            deleted.append(gone)
        move.undo(context, trial)
        np.testing.assert_array_equal(mc.atoms.positions, before)
        assert [c.index.tolist() for c in mc.atoms.constraints] == [[1]]
    assert deleted == [0, 0, 2, 2]


def test_a_choice_among_moves_follows_the_weights_exactly():
    mc = simulation("Cu2Ni2", [SpeciesSwap(), Displacement(0.1), SpinFlip()], weights=[2, 0, 6])
    chosen = []
    for u in (np.arange(80) + 0.5) / 80:
        mc.context.rng = Script([u])
        chosen.append(mc._choose())
    assert [chosen.count(k) for k in range(3)] == [20, 0, 60]


class OneDraw(Script):
    """Gives a colour, the numbers that pick sites, and the numbers that pick species."""

    def __init__(self, color, sites, species=()):
        super().__init__([color])
        self.sites, self.species = np.asarray(sites), np.asarray(species)

    def random(self, size=None, dtype=None):
        if size is None:
            return super().random()
        assert size == len(self.sites)
        return self.sites

    def integers(self, high, size):
        assert (high, size) == (2, len(self.species))
        return self.species

    def standard_exponential(self, n):
        return np.full(n, np.inf)


@pytest.mark.parametrize(("color", "sites"), [(0.3, [0, 2, 5, 7, 8, 10, 13, 15]), (0.7, [1, 3, 4, 6, 9, 11, 12, 14])])
def test_a_sublattice_is_a_colour_of_which_the_fraction_is_drawn(color, sites):
    atoms = lattice(4)
    atoms.calc = Ising(4)
    mc = MetropolisMC(atoms, T, Sublattice(SpinFlip(), fraction=0.3), seed=0)
    mc.context.rng = OneDraw(color, [0.1, 0.29, 0.31, 0.9, 0.0, 0.5, 0.299, 0.3])
    mc.run(1)
    drawn = [sites[k] for k in (0, 1, 4, 6)]
    assert np.flatnonzero(atoms.get_initial_magnetic_moments() < 0).tolist() == drawn
    assert mc.statistics["Sublattice(SpinFlip)"].attempted == 4
    assert mc.energy == pytest.approx(atoms.get_potential_energy())


def test_sites_of_a_sublattice_become_each_other_species_alike():
    """Of two numbers each leads to one of the two other species, and no two to the same."""
    found = {}
    for draw in (0, 1):
        atoms = Atoms("CuNiAuAgCuNiAuAg", positions=3.0 * np.arange(24).reshape(8, 3))
        atoms.calc = Sites({})
        move = Sublattice(Transmutation({"Cu": 0.0, "Ni": 0.0, "Au": 0.0}), fraction=1.0, sets=[np.arange(8)])
        mc = MetropolisMC(atoms, T, move, seed=0)
        mc.context.rng = OneDraw(0.5, [], [draw] * 6)
        mc.run(1)
        found[draw] = atoms.numbers.reshape(2, 4)
        assert (found[draw][0] == found[draw][1]).all()
    for site, number in enumerate((29, 28, 79)):
        assert {number, found[0][0, site], found[1][0, site]} == {29, 28, 79}
    assert found[0][0, 3] == found[1][0, 3] == 47


def test_moves_with_other_atoms_do_not_share_their_lists():
    """Each proposes its own atoms, also where both were asked for before, and where one of them may move any."""
    moves = [Displacement(0.1, indices=[0]), Displacement(0.1, indices=[1, 2]), Displacement(0.1)]
    mc = simulation("Ar4", moves, constraint=FixAtoms([3]))
    changed = [set(), set(), set()]
    for _ in range(60):
        for move, seen in zip(mc.moves, changed, strict=True):
            trial = move.propose(mc.context)
            seen |= set(trial.changed.tolist())
            move.undo(mc.context, trial)
    assert changed == [{0}, {1, 2}, {0, 1, 2}]
    swaps = [SpeciesSwap(indices=[0, 2]), SpeciesSwap(indices=[1, 3]), SpeciesSwap()]
    mc = simulation("Cu2Ni2", swaps)
    found = [outcomes(mc.context, move, numbers, 4, 2) for move in mc.moves]
    assert [len(row) for row in found] == [1, 1, 4]


@pytest.mark.parametrize("other", [Displacement(0.5), VolumeChange(step=0.2), SpeciesSwap()])
def test_colours_are_asked_for_again_after_positions_or_cell_have_changed(other):
    class Counting(Sites):
        asked = 0

        def independent_sets(self, atoms):
            self.asked += 1
            return super().independent_sets(atoms)

    atoms = Atoms("Cu2Ni2", positions=2.0 * np.arange(12).reshape(4, 3), cell=[9.0] * 3, pbc=True)
    atoms.calc = Counting({})
    move = Sublattice(Transmutation({"Cu": 0.0, "Ni": 0.0, "Au": 0.0}))
    mc = MetropolisMC(atoms, T, [other, move], seed=0)
    for anew in (0 if isinstance(other, SpeciesSwap) else 1, 0):
        for _ in range(20 * anew + 1):
            mc.energy = mc.moves[0].attempt(mc.context, mc.energies, mc.energy, mc._records[0]) if anew else mc.energy
        before = atoms.calc.asked
        for _ in range(3):
            mc.energy = mc.moves[1].attempt(mc.context, mc.energies, mc.energy, mc._records[1])
        assert atoms.calc.asked == before + anew
