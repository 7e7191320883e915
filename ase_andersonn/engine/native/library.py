"""The compiled kernels: built once a machine, kept in the user's cache, loaded with ctypes.

`python -m ase_andersonn.engine.native.library` builds them; importing this loads the standard library alone.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).parent / "attention.cpp"
FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread"),
    # As -ffast-math, without what it does to other code of the process (flushing denormals) and to infinities.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"),
)
CACHE = "ASE_ANDERSONN_CACHE"
"""Environment variable: the folder of compiled kernels, instead of `ase-andersonn` in the user's cache."""


def cache_folder() -> Path:
    """The folder of compiled kernels."""
    if named := os.environ.get(CACHE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ase-andersonn"


def find_compiler() -> str | None:
    """The C++ compiler: the environment variable CXX, or one of the usual names."""
    named = shlex.split(os.environ.get("CXX", ""))
    return next((path for path in map(shutil.which, named[:1] or ("g++", "clang++", "c++")) if path), None)


@functools.cache
def _key() -> str:
    """What a library depends on: source, flags and processor."""
    digest = hashlib.sha256(SOURCE.read_bytes())
    digest.update(repr((FLAGS, platform.machine(), platform.system(), _processor())).encode())
    return digest.hexdigest()[:32]


def _processor() -> str:
    """Model and instruction sets of the processor, where the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(next((line for line in lines if line.startswith(name)), "") for name in ("model name", "flags"))


def library_path() -> Path:
    """Where this machine's library is kept; a file beside it holds its SHA-256."""
    return cache_folder() / f"kernels-{_key()}.so"


def build() -> Path:
    """Compile the kernels, and replace the library whole.

    Raises:
        RuntimeError: without a compiler, and where it fails.
        OSError: where the cache cannot be written.
    """
    compiler, path = find_compiler(), library_path()
    if compiler is None:
        raise RuntimeError("no C++ compiler found; install g++ or clang++, or set CXX")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        done = subprocess.run(
            [compiler, *FLAGS, str(SOURCE), "-o", str(made)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{compiler} failed: {done.stderr.strip()[:2000]}")
        checksum = made.with_suffix(".sha256")
        checksum.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
        checksum.replace(path.with_suffix(".sha256"))
        made.replace(path)
    return path


@functools.cache
def build_in_background() -> None:
    """Begin to compile in a process of its own, once a process; what comes of it is seen by `is_built`."""
    if find_compiler() is None:
        return
    command = [sys.executable, "-m", "ase_andersonn.engine.native.library"]
    nothing = subprocess.DEVNULL
    subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def is_built() -> bool:
    """Whether the cache holds this machine's library, undamaged."""
    try:
        expected = library_path().with_suffix(".sha256").read_text()
        return hashlib.sha256(library_path().read_bytes()).hexdigest() == expected
    except OSError:
        return False


@functools.cache
def load() -> ctypes.CDLL | None:
    """The library, or None where it cannot be loaded."""
    try:
        return ctypes.CDLL(str(library_path()))
    except OSError as error:
        logger.warning("the compiled kernels cannot be loaded (%s); calls go on without.", error)
        return None


if __name__ == "__main__":
    build()
