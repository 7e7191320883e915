"""The list with a skin: always the fresh list, made anew only when it has to be."""

import copy
import pickle

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st
from input_structures import STRUCTURES, edge_set_of
from test_neighbors import check_laws

from ase_andersonn.structures import Edges, NeighborList, neighbor_edges

CUTOFF, SKIN = 3.5, 0.6


def update(kept: NeighborList, atoms: Atoms) -> Edges:
    """An update, compared with a fresh list and the laws."""
    edges = kept.update(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    fresh = neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, kept.cutoff)
    assert edge_set_of(edges) == edge_set_of(fresh)
    check_laws(edges, atoms, kept.cutoff)
    return edges


def started(name: str = "bulk", skin: float = SKIN) -> tuple[NeighborList, Atoms]:
    kept, atoms = NeighborList(CUTOFF, skin), STRUCTURES[name].copy()
    update(kept, atoms)
    return kept, atoms


@given(
    name=st.sampled_from(sorted(STRUCTURES)),
    seed=st.integers(0, 2**16),
    step=st.sampled_from([0.003, 0.03, 0.15, 1.5]),
    strain=st.sampled_from([0.0, 0.001, 0.02]),
    skin=st.sampled_from([0.0, 0.3, 1.0]),
    wrap=st.booleans(),
)
def test_random_walk(name: str, seed: int, step: float, strain: float, skin: float, wrap: bool) -> None:
    rng, kept, atoms = np.random.default_rng(seed), NeighborList(CUTOFF, skin), STRUCTURES[name].copy()
    for k in range(8):
        update(kept, atoms)
        atoms.positions += rng.normal(size=(len(atoms), 3)) * step
        if strain and k % 2:
            stretch = np.eye(3) + rng.normal(size=(3, 3)) * strain
            atoms.set_cell(atoms.cell.array @ stretch, scale_atoms=bool(k % 4 == 1))
        if wrap:
            atoms.wrap(eps=0.0)
    assert kept.updates == 8
    assert 1 <= kept.rebuilds <= 8


@pytest.mark.parametrize("name", ["bulk", "skewed", "skewed slab", "skewed wire", "left-handed"])
def test_wrapping_needs_no_new_list(name: str) -> None:
    kept, atoms = started(name)
    rng, start = np.random.default_rng(0), atoms.positions.copy()
    for _ in range(20):
        whole = rng.integers(-3, 4, (len(atoms), 3)) * atoms.pbc
        motion = rng.normal(size=(len(atoms), 3))
        motion *= 0.49 * SKIN * rng.random((len(atoms), 1)) / np.linalg.norm(motion, axis=1, keepdims=True)
        atoms.positions = start + motion + whole @ atoms.cell.array
        update(kept, atoms)
    assert kept.rebuilds == 1


def test_drift_across_a_boundary_needs_no_new_list() -> None:
    """Atoms on the boundary hop from side to side at every step."""
    kept, atoms = started("crystal")
    for k in range(10):
        atoms.positions += 0.1 * SKIN * (-1) ** k
        atoms.wrap(eps=0.0)
        update(kept, atoms)
    assert kept.rebuilds == 1


def test_new_list_once_an_atom_has_moved_half_the_skin() -> None:
    kept, atoms = started()
    start = atoms.positions.copy()
    atoms.positions[3, 1] = start[3, 1] + 0.499 * SKIN
    update(kept, atoms)
    assert kept.rebuilds == 1
    atoms.positions[3, 1] = start[3, 1] + 0.501 * SKIN
    update(kept, atoms)
    assert kept.rebuilds == 2


def test_pair_that_comes_from_just_outside_the_skin() -> None:
    kept = NeighborList(CUTOFF, SKIN)
    atoms = Atoms("H2", positions=[[0.0, 0.0, 0.0], [CUTOFF + SKIN + 1e-6, 0.0, 0.0]])
    for _ in range(50):
        update(kept, atoms)
        atoms.positions[0, 0] += 0.02
        atoms.positions[1, 0] -= 0.02
    assert 2 < kept.rebuilds < 10


def test_an_unmoved_structure_needs_no_new_list_even_without_skin() -> None:
    kept, atoms = started(skin=0.0)
    update(kept, atoms)
    assert kept.rebuilds == 1
    atoms.positions[0, 0] += 1e-9
    update(kept, atoms)
    assert kept.rebuilds == 2


@pytest.mark.parametrize("scale_atoms", [True, False])
def test_small_strain_needs_no_new_list(scale_atoms: bool) -> None:
    kept, atoms = started()
    strain = np.array([[0.01, 0.004, 0.0], [0.004, -0.01, 0.002], [0.0, 0.002, 0.008]])
    if not scale_atoms:
        strain *= 0.5
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=scale_atoms)
    update(kept, atoms)
    assert kept.rebuilds == 1


def test_rigid_rotation_needs_no_new_list() -> None:
    kept, atoms = started("skewed")
    for _ in range(5):
        atoms.rotate(40.0, (1.0, 2.0, 3.0), rotate_cell=True)
        update(kept, atoms)
    assert kept.rebuilds == 1


@pytest.mark.parametrize("factor", [0.8, 0.85])
def test_compression_needs_a_new_list(factor: float) -> None:
    kept, atoms = started()
    atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    update(kept, atoms)
    assert kept.rebuilds == 2


def test_changed_species_atoms_or_pbc_need_a_new_list() -> None:
    kept, atoms = started()
    atoms.numbers[0] = 6
    update(kept, atoms)
    assert kept.rebuilds == 2
    atoms.pbc = [True, True, False]
    update(kept, atoms)
    assert kept.rebuilds == 3
    del atoms[5]
    update(kept, atoms)
    assert kept.rebuilds == 4
    kept.reset()
    update(kept, atoms)
    assert (kept.updates, kept.rebuilds) == (5, 5)


def test_a_cell_vector_that_does_not_repeat_may_change() -> None:
    kept, atoms = started("slab")
    atoms.cell[2] *= 2.0
    update(kept, atoms)
    assert kept.rebuilds == 1


def test_index_arrays_are_returned_again_until_an_edge_crosses_the_cutoff() -> None:
    kept, atoms = started("crystal")
    first = update(kept, atoms)
    atoms.positions[0] += 0.01
    second = update(kept, atoms)
    assert second.center is first.center
    assert second.memo is first.memo
    assert not np.array_equal(second.vectors, first.vectors)
    atoms.positions[0] += atoms.cell.array[0]
    wrapped = update(kept, atoms)
    assert wrapped.center is first.center
    assert not np.array_equal(wrapped.offset, first.offset)


def test_earlier_edges_stay_as_they_were() -> None:
    kept, atoms = started()
    before = update(kept, atoms)
    saved = copy.deepcopy(before)
    atoms.rattle(0.05)
    atoms.positions[0] += atoms.cell.array[0]
    update(kept, atoms)
    for name in ("center", "other", "offset", "reverse", "vectors"):
        np.testing.assert_array_equal(getattr(before, name), getattr(saved, name))


def test_the_callers_arrays_may_change_in_place() -> None:
    kept, atoms = started()
    atoms.positions[:] += np.random.default_rng(0).normal(size=(len(atoms), 3))
    update(kept, atoms)
    assert kept.rebuilds == 2


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda kept: pickle.loads(pickle.dumps(kept))])
def test_copies_go_their_own_way(duplicate: object) -> None:
    kept, atoms = started()
    other = duplicate(kept)  # type: ignore[operator]
    atoms.rattle(0.5, seed=3)
    update(other, atoms)
    assert (kept.updates, other.updates) == (1, 2)
    update(kept, STRUCTURES["bulk"])
    assert kept.rebuilds == 1


@pytest.mark.parametrize("skin", [-0.1, float("nan"), float("inf")])
def test_skin_is_not_negative(skin: float) -> None:
    with pytest.raises(ValueError, match="skin is"):
        NeighborList(3.0, skin)


def test_copies_find_their_edges_anew() -> None:
    kept, atoms = started()
    for other in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        update(other, atoms)
        assert other.rebuilds == kept.rebuilds + 1
    assert len(pickle.dumps(kept)) < 1000
