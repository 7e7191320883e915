"""Mean and standard deviation of each species' features, gathered batch by batch."""

import torch

from ase_andersonn.potentials.moments import POOLED_ATOMS, STD_FLOOR, Moments, moments_of


def test_batches_give_the_moments_of_all_atoms() -> None:
    generator = torch.Generator().manual_seed(0)
    species = torch.randint(0, 2, (100_000,), generator=generator)
    x = torch.randn(100_000, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.1]) + 10.0 * species[:, None]
    batches = [(species[k::7], (x[k::7],)) for k in range(7)]
    (found,) = moments_of(batches, 2)
    for index in (0, 1):
        rows = x[species == index].double()
        torch.testing.assert_close(found.mean[index], rows.mean(0))
        # the pooled part is a share of POOLED_ATOMS in 50,000, of a standard deviation that is nearly the same
        torch.testing.assert_close(found.std[index], rows.std(0, correction=0) + STD_FLOOR, rtol=1e-4, atol=1e-5)


def test_one_species_is_not_shrunk() -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    moments = Moments(1, 4)
    moments.add(torch.zeros(5, dtype=torch.int64), x)
    expected = (x.var(0, correction=0) + STD_FLOOR**2).sqrt() + STD_FLOOR
    torch.testing.assert_close(moments.std[0], expected)


def test_few_atoms_take_the_spread_of_all_and_none_their_mean_too() -> None:
    generator = torch.Generator().manual_seed(1)
    moments = Moments(3, 1)
    many = torch.randn(int(100 * POOLED_ATOMS), 1, generator=generator)
    moments.add(torch.zeros(len(many), dtype=torch.int64), many)
    moments.add(torch.ones(4, dtype=torch.int64), torch.full((4, 1), 3.0))  # four atoms alike
    assert moments.mean[1].item() == 3.0
    assert 0.8 < moments.std[1].item() < 1.1
    torch.testing.assert_close(moments.mean[2], moments.sum.sum(0) / (len(many) + 4))
    assert 0.9 < moments.std[2].item() < 1.1
