"""Message densities: invariances, smoothness at the cutoff, and dependence on directions."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.spatial.transform import Rotation

from ase_andersonn.nn.message_density import MessageDensity

CUTOFF = 4.0


def message_density(l_max: int = 3, n_bispectrum: int = 2) -> MessageDensity:
    torch.manual_seed(0)
    made = MessageDensity(cutoff=CUTOFF, n_radial=4, l_max=l_max, n_message=6, n_pairs=2, n_bispectrum=n_bispectrum)
    return made.double().requires_grad_(False)


def features_of(module: MessageDensity, vectors: np.ndarray, messages: torch.Tensor) -> torch.Tensor:
    d = torch.from_numpy(vectors)[None]
    r = d.norm(dim=-1)
    return module(r, d / r[..., None], messages[None], torch.ones_like(r, dtype=torch.bool))[0]


def environment(n: int = 7) -> tuple[np.ndarray, torch.Tensor]:
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * rng.uniform(1.0, 3.8, (n, 1)), torch.from_numpy(rng.normal(size=(n, 6)))


@pytest.mark.parametrize("l_max", [0, 1, 2, 4])
def test_turning_mirroring_and_another_order_change_nothing(l_max: int) -> None:
    module, (vectors, messages) = message_density(l_max), environment()
    expected = features_of(module, vectors, messages)
    assert expected.shape == (module.n_features,)
    turned = -vectors @ Rotation.from_euler("xyz", [0.3, 1.1, -0.7]).as_matrix().T
    order = [3, 0, 6, 1, 5, 2, 4]
    torch.testing.assert_close(features_of(module, turned, messages), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(features_of(module, vectors[order], messages[order]), expected, rtol=1e-12, atol=1e-12)


def test_it_ends_smoothly_at_the_cutoff() -> None:
    module, (vectors, messages) = message_density(), environment()
    without = features_of(module, vectors[1:], messages[1:])
    changes = []
    for gap in (1e-2, 1e-3):
        vectors[0] *= (CUTOFF - gap) / np.linalg.norm(vectors[0])
        changes.append(float((features_of(module, vectors, messages) - without).abs().max()))
    assert changes[1] == pytest.approx(changes[0] * 1e-3, rel=0.2)  # as the third power of the gap
    vectors[0] *= 1.1
    torch.testing.assert_close(features_of(module, vectors, messages), without, rtol=0, atol=1e-14)


def test_messages_of_two_neighbours_exchanged_change_the_features() -> None:
    """The neighbours' directions differ, so the density does."""
    module = message_density(n_bispectrum=0)
    ethanol = molecule("CH3CH2OH").positions
    vectors, (_, messages) = ethanol[1:] - ethanol[0], environment(len(ethanol) - 1)
    exchanged = messages[torch.tensor([1, 0, *range(2, len(messages))])]
    difference = features_of(module, vectors, messages) - features_of(module, vectors, exchanged)
    assert float(difference.abs().max()) > 1e-3
