"""Device, dtype and compiler of a model: chosen here, with the reason of every choice kept for the user to read."""

import importlib.util
import os
import shlex
import shutil
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from .config import CompileMode as CompileMode

P = ParamSpec("P")
T = TypeVar("T")

EAGER_SECONDS = 120.0
"""Work that a calculator does before `compile="auto"` spends time on compiling.

It is about as long as compiling takes, so that a run that ends soon after takes about twice its time at most.
"""
FEW_ATOMS = 256
"""Atoms up to which a second thread gains little, a fifth at this size.

OpenMP's waiting costs a core all the same, and where another process has that core, several times the work itself.
`models.whole.SMALL` answers another question, and is the same by chance.
"""
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device meant: ``"auto"`` is CUDA where there is one, else the CPU; ``"cuda"`` is the current CUDA device.

    Raises ValueError for a name torch does not know and for a device this machine does not have.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = ["cpu", *(f"cuda:{index}" for index in range(n_cuda))]
    if device == "auto":
        device = "cuda" if n_cuda else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; use 'auto' or one of {', '.join(available)}") from error
    if str(found) == "cuda" and n_cuda:
        found = torch.device("cuda", torch.cuda.current_device())
    if found.type == "cpu":
        return torch.device("cpu")
    if str(found) not in available:
        raise ValueError(f"device {str(device)!r} is not available here; use 'auto' or one of {', '.join(available)}")
    return found


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """``float32`` or ``float64``, by name or as torch dtype. Raises ValueError for any other."""
    for name, known in DTYPES.items():
        if dtype in (name, known):
            return known
    raise ValueError(f"dtype {dtype!r} is not supported; use one of {', '.join(DTYPES)}")


def find_compiler(device: torch.device) -> tuple[str | None, str]:
    """(back end, reason): ``"inductor"`` where torch.compile can work for that device, else None."""
    cxx = _find_cxx()
    if cxx is None:
        return None, "no C++ compiler found; install g++ or clang++, or set CXX"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return None, "Python.h not found; install the development headers of this Python"
    if device.type == "cpu":
        return "inductor", f"C++ compiler {cxx}"
    if device.type != "cuda":
        return None, f"no compiler for device type {device.type!r}"
    if importlib.util.find_spec("triton") is None:
        return None, "Triton is not installed"
    if torch.cuda.get_device_capability(device) < (7, 0):
        return None, "Triton needs a GPU of compute capability 7.0 or newer"
    return "inductor", "Triton"


def _find_cxx() -> str | None:
    named = shlex.split(os.environ.get("CXX", ""))
    candidates = named[:1] or ("g++", "clang++", "c++")
    return next((path for path in map(shutil.which, candidates) if path), None)


class CompiledFunction(Generic[P, T]):
    """A function together with the back end that runs it.

    ``backend`` is ``"inductor"`` or ``"eager"`` and ``reason`` says why. Compilation happens at the first call. Copies
    and pickles carry the function and compile it again.
    """

    def __init__(
        self, function: Callable[P, T], backend: str, reason: str, *, fall_back: bool, options: dict[str, Any]
    ) -> None:
        self.function = function
        self.backend = backend
        self.reason = reason
        self._fall_back = fall_back
        self._options = options
        self._compiled: Callable[P, T] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.backend == "eager":
            return self.function(*args, **kwargs)
        if self._compiled is None:
            self._compiled = torch.compile(self.function, backend=self.backend, **self._options)
        try:
            return self._compiled(*args, **kwargs)
        except _compile_errors() as error:
            if not self._fall_back:
                raise
            value = self.function(*args, **kwargs)  # raises if the fault is in the function or its arguments
            self.backend, self.reason = "eager", f"compilation failed: {_summary(error)}"
            return value

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return f"{type(self).__name__}({name}, backend={self.backend!r}, reason={self.reason!r})"


def compile_function(
    function: Callable[P, T],
    *,
    device: torch.device,
    mode: CompileMode = "auto",
    dynamic: bool | None = None,
) -> CompiledFunction[P, T]:
    """``function``, compiled for ``device`` where that is possible.

    mode: ``"auto"`` compiles where a compiler exists and runs eagerly otherwise, also when the compiler fails; ``True``
    raises RuntimeError instead of running eagerly; ``False`` never compiles. dynamic: as in torch.compile.
    """
    if mode is False:
        return CompiledFunction(function, "eager", "asked for", fall_back=False, options={})
    if mode is not True and mode != "auto":
        raise ValueError(f"compile mode {mode!r} is not known; use 'auto', True or False")
    backend, reason = find_compiler(device)
    if backend is None and mode is True:
        raise RuntimeError(f"cannot compile for {device}: {reason}; use compile='auto' to run eagerly instead")
    return CompiledFunction(
        function, backend or "eager", reason, fall_back=mode == "auto", options={"dynamic": dynamic}
    )


def _compile_errors() -> tuple[type[Exception], ...]:
    """What a failing compiler raises; errors of the function itself are not among them."""
    from torch._dynamo.exc import TorchDynamoException

    return (TorchDynamoException,)


def _summary(error: Exception) -> str:
    """The first two lines of the text: what failed and why; then come hints on debugging the compiler."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


class _MatmulPrecision:
    """The process-wide float32 matmul precision, exact while at least one `exact_matmul` is open in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._restore: Callable[[], None] = lambda: None

    def enter(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._restore = _set_exact_matmul()
            self._depth += 1

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._restore()


_PRECISION = _MatmulPrecision()


@contextmanager
def exact_matmul() -> Iterator[None]:
    """Float32 matrix products in full float32 inside the context: no TF32 on CUDA, no bfloat16 in oneDNN.

    The setting belongs to the process: the first context to open in any thread changes it, the last to close puts it
    back.
    """
    _PRECISION.enter()
    try:
        yield
    finally:
        _PRECISION.leave()


@contextmanager
def threads_for(n_atoms: int) -> Iterator[None]:
    """One thread inside the context for so few atoms that more do not pay, torch's own number for more.

    The number belongs to the process: other threads that begin meanwhile get it too. A compiler's kernels are made for
    the number of threads at their first call, and made anew for another.
    """
    before = torch.get_num_threads()
    if n_atoms > FEW_ATOMS or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _set_exact_matmul() -> Callable[[], None]:
    """Make float32 products exact and return what undoes it.

    torch >= 2.9 has a second, finer interface, ``fp32_precision``; a user of that one makes the older getter raise.
    """
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:
        precision = None
    backends: tuple[Any, ...] = (torch.backends.cuda, torch.backends.mkldnn)
    fine = [b.matmul for b in backends if hasattr(getattr(b, "matmul", None), "fp32_precision")]
    saved = [backend.fp32_precision for backend in fine]
    torch.set_float32_matmul_precision("highest")

    def restore() -> None:
        if precision is not None:
            torch.set_float32_matmul_precision(precision)
        for backend, value in zip(fine, saved, strict=True):
            backend.fp32_precision = value

    return restore
