"""Choice of device, dtype and compiler of a model, with the reason of each choice."""

import importlib.util
import os
import shlex
import shutil
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from .config import CompileMode as CompileMode

P = ParamSpec("P")
T = TypeVar("T")

EAGER_SECONDS = 120.0
"""Seconds of work of a calculator before `compile="auto"` compiles.

It is about the time of a compilation, so that a run that ends soon after takes at most about twice as long.
"""
FEW_ATOMS = 256
"""Largest number of atoms evaluated with one thread; a second one gains at most 20 % at this size.

Waiting OpenMP threads occupy a core, which costs several times the work itself if another process uses that core. It is
equal to `engine.evaluator.FUSED_MAX_ATOMS` by coincidence only.
"""
DTYPES = {"float32": torch.float32, "float64": torch.float64}
AUTOCASTS = ("cpu", "cuda")
"""Devices whose autocast would affect matrix products of the package."""
_PROCESS = os.getpid()


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Resolve a device: ``"auto"`` is CUDA if available, otherwise the CPU; ``"cuda"`` is the current CUDA device.

    Raises ValueError for an unknown name and for a device that is not available.
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
    """Resolve ``float32`` or ``float64``, by name or as torch dtype. Raises ValueError for any other."""
    for name, known in DTYPES.items():
        if dtype in (name, known):
            return known
    raise ValueError(f"dtype {dtype!r} is not supported; use one of {', '.join(DTYPES)}")


def find_compiler(device: torch.device) -> tuple[str | None, str]:
    """(back end, reason): ``"inductor"`` if torch.compile can work for the device, otherwise None."""
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
    """Function with the back end that runs it.

    ``backend`` is ``"inductor"``, ``"eager"``, or ``"native"`` (eager, of a model with kernels in C++); ``reason`` says
    why. Compilation happens at the first call. Copies and pickles carry the function and compile it again.
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
        if self.backend in ("eager", "native"):
            return self.function(*args, **kwargs)
        if self._compiled is None:
            self._compiled = torch.compile(self.function, backend=self.backend, **self._options)
        try:
            return self._compiled(*args, **kwargs)
        except _compile_errors() as error:
            if not self._fall_back:
                raise
            value = self.function(*args, **kwargs)  # raises for errors of the function or its arguments
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
    """Compile a function for a device, if possible.

    mode: ``"auto"`` compiles where a compiler exists and runs eagerly otherwise, also when the compiler fails; ``True``
    raises RuntimeError instead of running eagerly; ``False`` and ``"native"`` never compile. dynamic: as in
    torch.compile.
    """
    if mode is False or mode == "native":
        return CompiledFunction(function, mode or "eager", "asked for", fall_back=False, options={})
    if mode is not True and mode != "auto":
        raise ValueError(f"compile mode {mode!r} is not known; use 'auto', 'native', True or False")
    backend, reason = find_compiler(device)
    if backend is None and mode is True:
        raise RuntimeError(f"cannot compile for {device}: {reason}; use compile='auto' to run eagerly instead")
    return CompiledFunction(
        function, backend or "eager", reason, fall_back=mode == "auto", options={"dynamic": dynamic}
    )


def _compile_errors() -> tuple[type[Exception], ...]:
    """Exceptions of a failing compiler, without errors of the function itself."""
    from torch._dynamo.exc import TorchDynamoException

    return (TorchDynamoException,)


def _summary(error: Exception) -> str:
    """First two lines of the message, what failed and why, without hints on debugging the compiler."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


class _ProcessSetting:
    """Process-wide setting, in effect while at least one context is open in any thread.

    Args:
        apply: applies the setting and returns a function to undo it.
    """

    def __init__(self, apply: Callable[[], Callable[[], None]]) -> None:
        self._apply = apply
        self._lock = threading.Lock()
        self._depth = 0
        self._restore: Callable[[], None] = lambda: None
        if hasattr(os, "register_at_fork"):  # a thread that is missing in the child may hold the lock
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether a context is open in any thread."""
        return self._depth > 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._depth == 0:
                self._restore = self._apply()
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    self._restore()


def _set_exact_matmul() -> Callable[[], None]:
    """Make float32 products exact and return a function to undo it.

    torch >= 2.9 has a second, finer interface, ``fp32_precision``; if it was used, the older getter raises.
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


def _set_default_dtype() -> Callable[[], None]:
    """Make float32 the default and return a function to undo it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    return partial(torch.set_default_dtype, before)


_PRECISION = _ProcessSetting(_set_exact_matmul)
_DEFAULT_DTYPE = _ProcessSetting(_set_default_dtype)


def exact_matmul() -> AbstractContextManager[None]:
    """Context with float32 matrix products in full precision: no TF32 on CUDA, no bfloat16 in oneDNN.

    The setting is process-wide: the first context to open in any thread changes it, the last to close restores it.
    """
    return _PRECISION()


@contextmanager
def own_torch_state(*, grad: bool | None = True) -> Iterator[None]:
    """Context and decorator with the torch settings that the package requires, independent of the caller's.

    `torch.inference_mode` and `torch.autocast` are off, gradients are recorded according to `grad`, and new tensors are
    float32 on the CPU by default. A process that was forked after importing the package uses one thread: OpenMP threads
    do not survive a fork, and work submitted to them would hang.

    All settings are restored at the end. The process-wide default dtype and number of threads are only set if they
    differ.

    Args:
        grad: whether autograd records; None for the caller's setting, except in `torch.inference_mode`.
    """
    with ExitStack() as stack:
        probe = torch.empty(0)
        if grad is None:
            grad = torch.is_grad_enabled()
        if probe.is_inference():
            stack.enter_context(torch.inference_mode(False))
        if torch.is_grad_enabled() != grad:
            stack.enter_context(torch.set_grad_enabled(grad))
        for kind in AUTOCASTS:
            if torch.is_autocast_enabled(kind):
                torch.set_autocast_enabled(kind, False)
                stack.callback(torch.set_autocast_enabled, kind, True)
        if probe.dtype != torch.float32 or _DEFAULT_DTYPE.is_open:  # else another thread could restore it
            stack.enter_context(_DEFAULT_DTYPE())
        if probe.device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if os.getpid() != _PROCESS:
            stack.enter_context(_one_thread())
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(n_atoms: int) -> AbstractContextManager[None]:
    """Context with one thread for up to `FEW_ATOMS` atoms, and torch's own number for more.

    The number is process-wide and also affects other threads that start meanwhile. Compiled kernels are specialized for
    the number of threads at their first call, and compiled again for another one.
    """
    return nullcontext() if n_atoms > FEW_ATOMS else _one_thread()
