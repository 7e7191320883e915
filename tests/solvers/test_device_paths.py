"""What the solvers do on a GPU, on the CPU: the same numbers in another order."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from maps import Linear, saturating

from ase_andersonn.solvers import Anderson, Segments
from ase_andersonn.solvers.anderson import _DeviceWindow
from ase_andersonn.solvers.base import Point


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6), k=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_sums_as_one_long_list_are_the_sums(lengths, k, seed):
    index = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    segments = Segments(index, len(lengths))
    rows = torch.randn(len(index), k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(segments._total_flat(rows, segments.lengths), segments.total(rows))


@given(seed=st.integers(0, 2**31), mixing=st.sampled_from([1.0, 0.7]))
def test_one_problem_takes_the_same_steps_with_its_gram_matrix_as_tensors(seed, mixing):
    linear = Linear.random(seed, 10, 4, 0.9)
    solver, z = Anderson(window=3, mixing=mixing), linear.start
    host, device = solver.init(z, None), solver.init(z, None)
    device.window = _DeviceWindow(1, 3, host.window.limits, z.device)
    active = torch.ones(1, dtype=torch.bool)
    for _ in range(7):
        point = Point.of(z, saturating(linear, z), None)
        other, device = solver.step(device, point, active)
        z, host = solver.step(host, point, active)
        torch.testing.assert_close(other, z, rtol=1e-6, atol=1e-7)
