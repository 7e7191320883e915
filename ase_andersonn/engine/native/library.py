"""The compiled kernels: built once a machine, kept in the user's cache, loaded with ctypes.

`python -m ase_andersonn.engine.native.library` builds them; importing this loads no torch.
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
from collections.abc import Iterable
from pathlib import Path

from ase_andersonn.lock import InUseError, Lock

logger = logging.getLogger(__name__)

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-fPIC", "-pthread"),
    # As -ffast-math, without what it does to other code of the process (flushing denormals) and to infinities.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"),
)
CACHE = "ASE_ANDERSONN_CACHE"
"""Environment variable: the folder of compiled kernels, instead of `ase-andersonn` in the user's cache."""


def cache_folder() -> Path:
    """The folder of compiled kernels.

    Raises:
        RuntimeError: for a user without a home directory, where the environment names no folder either.
    """
    if named := os.environ.get(CACHE):
        return Path(named)
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "ase-andersonn"
    try:
        return Path.home() / ".cache" / "ase-andersonn"
    except RuntimeError as error:  # a shared temporary folder would do, but others could put their code there
        raise RuntimeError(f"no home directory for the compiled kernels; set {CACHE} to a folder of yours") from error


def find_compiler() -> str | None:
    """The C++ compiler: the environment variable CXX, or one of the usual names."""
    named = shlex.split(os.environ.get("CXX", ""))
    return next((path for path in map(shutil.which, named[:1] or ("g++", "clang++", "c++")) if path), None)


@functools.cache
def _key() -> str:
    """What a library depends on: source, flags and processor."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (*SOURCES, *HEADERS)))
    digest.update(repr((FLAGS, platform.machine(), platform.system(), _processor())).encode())
    return digest.hexdigest()[:32]


PROCESSOR = ("model name", "flags", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features")
"""Lines of /proc/cpuinfo with the instruction sets, of x86 and of ARM."""


def _processor() -> str:
    """Models and instruction sets of the processor's cores, where the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(PROCESSOR)}))


def library_path() -> Path:
    """Where this machine's library is kept; a file beside it holds its SHA-256."""
    return cache_folder() / f"kernels-{_key()}.so"


def build() -> Path:
    """Compile the kernels, and replace the library whole.

    Raises:
        RuntimeError: without a compiler or a cache folder, and where the compiler fails.
        OSError: where the cache cannot be written.
    """
    compiler, path = find_compiler(), library_path()
    if compiler is None:
        raise RuntimeError("no C++ compiler found; install g++ or clang++, or set CXX")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        objects = [str(Path(folder) / f"{source.stem}.o") for source in SOURCES]
        command = [compiler, *FLAGS]
        _run([*command, "-c", str(source), "-o", found] for source, found in zip(SOURCES, objects, strict=True))
        _run([[*command, "-shared", *objects, "-o", str(made)]])
        checksum = made.with_suffix(".sha256")
        checksum.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
        checksum.replace(path.with_suffix(".sha256"))
        made.replace(path)
    return path


def _run(commands: Iterable[list[str]]) -> None:
    """Run compilers side by side; RuntimeError with the messages of the first that fails."""
    started = [(each[0], subprocess.Popen(each, stderr=subprocess.PIPE, text=True)) for each in commands]
    messages = [process.communicate()[1].strip() for _, process in started]
    for (name, process), text in zip(started, messages, strict=True):
        if process.returncode:
            raise RuntimeError(f"{name} failed: {text[:2000]}")


def start_build() -> "subprocess.Popen[bytes] | None":
    """Begin to compile in a process of its own; `is_built` is true when it is done.

    Returns:
        the process, with the reason of a failure in its error output; None without a compiler.
    """
    if find_compiler() is None:
        return None
    command = [sys.executable, "-m", "ase_andersonn.engine.native.library"]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=nothing, stdout=nothing, stderr=subprocess.PIPE, start_new_session=True, env=_environment()
    )


build_in_background = functools.cache(start_build)
"""As `start_build`, once a process."""


def _environment() -> dict[str, str]:
    """This process's environment, in which a child finds the package where this process found it."""
    found = str(Path(__file__).parents[3])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (found, os.environ.get("PYTHONPATH"))))}


@functools.cache
def warn_of_failure(process: "subprocess.Popen[bytes]") -> None:
    """Log why a build that has ended has failed, once."""
    assert process.stderr is not None
    lines = process.stderr.read().decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"]
    logger.warning("the compiled kernels could not be built (%s); calls go on without.", lines[-1])


def is_built() -> bool:
    """Whether the cache holds this machine's library, undamaged."""
    try:
        expected = library_path().with_suffix(".sha256").read_text()
        return hashlib.sha256(library_path().read_bytes()).hexdigest() == expected
    except (OSError, RuntimeError):
        return False


@functools.cache
def load() -> ctypes.CDLL | None:
    """The library, or None where it cannot be loaded."""
    try:
        return ctypes.CDLL(str(library_path()))
    except OSError as error:
        logger.warning("the compiled kernels cannot be loaded (%s); calls go on without.", error)
        return None


@functools.cache
def can_use() -> bool:
    """Whether the library is loaded; it is built first where that is possible."""
    try:
        if not is_built():
            build()
    except (OSError, RuntimeError):
        return False
    return load() is not None


def main() -> None:
    """Build the library, unless another process is at it or has done so."""
    try:
        with Lock(cache_folder() / ".lock", "the cache of compiled kernels", "Wait until they are built."):
            if not is_built():
                build()
    except InUseError:
        return
    except (OSError, RuntimeError) as error:
        sys.exit(str(error).strip())


if __name__ == "__main__":
    main()
