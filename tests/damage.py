"""Files as they are after accidents: flipped bits, cut short, empty, something else in their place."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FOREIGN = {
    "text": b"positions: 3\n",
    "pickle": b"\x80\x04K\x01.",
    "zip": b"PK\x05\x06" + bytes(18),
    "half a zip": b"PK\x03\x04 and no more",
    "zeros": bytes(1000),
    "header without body": b"\x02\0\0\0\0\0\0\0{}",
    "huge header": b"\xff" * 7 + b"\x7f{}",
}


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


def accidents(path: Path, flips: int = 60, ends: int = 400) -> Iterator[str]:
    """Damage the file in one way after another, and put it in order again at the end; yields what was done.

    Args:
        path: the file.
        flips: bits flipped, half of them within `ends` bytes of the first and the last one, where the format is.
        ends: bytes.
    """
    good, rng = path.read_bytes(), np.random.default_rng(0)
    n = len(good)
    near = np.concatenate([np.arange(min(ends, n)), np.arange(max(n - ends, 0), n)])
    for place in (*rng.integers(n, size=flips // 2), *rng.choice(near, size=flips // 2)):
        damaged, bit = bytearray(good), int(rng.integers(8))
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        yield f"bit {bit} of byte {place} flipped"
    for size in (0, 1, 7, 8, 9, n // 3, n // 2, n - 65, n - 64, n - 1):
        path.write_bytes(good[:size])
        yield f"cut to {size} bytes"
    for name, content in {**FOREIGN, "npz": npz(), "twice": good + good, "longer": good + b"\0"}.items():
        path.write_bytes(content)
        yield name
    path.unlink()
    path.mkdir()
    yield "a folder"
    path.rmdir()
    path.write_bytes(good)
