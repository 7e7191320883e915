"""Laws of packing."""

from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.batching import pack

sizes = st.lists(st.integers(1, 20), max_size=30)


@given(sizes, st.integers(1, 40), st.integers(1, 5))
def test_every_item_is_packed_once_in_order_and_batches_are_full(sizes: list[int], capacity: int, most: int) -> None:
    batches = pack(sizes, capacity, max_items=most)
    assert [index for batch in batches for index in batch] == list(range(len(sizes)))
    filled = [sum(sizes[i] for i in batch) for batch in batches]
    for batch, size in zip(batches, filled, strict=True):
        assert 1 <= len(batch) <= most
        assert size <= capacity or len(batch) == 1
    for batch, size, following in zip(batches, filled, batches[1:], strict=False):
        assert size + sizes[following[0]] > capacity or len(batch) == most


def test_an_order_is_kept() -> None:
    assert pack([3, 1, 2, 9], 4, [3, 2, 0, 1]) == [[3], [2], [0, 1]]
    assert pack([], 4) == []
