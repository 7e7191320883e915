"""Device, dtype, compiler and matmul precision: what is chosen, and that the choice is reported."""

import copy
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ase_andersonn import backends
from ase_andersonn.backends import (
    FEW_ATOMS,
    compile_function,
    exact_matmul,
    find_compiler,
    resolve_device,
    resolve_dtype,
    threads_for,
)

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(find_compiler(CPU)[0] is None, reason=find_compiler(CPU)[1])


def cubic(x: torch.Tensor) -> torch.Tensor:
    return x**3 - 2.0 * x


def scaled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x @ y


# device and dtype


def test_auto_is_cuda_where_there_is_one() -> None:
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "cpu:0"])
def test_cpu(device: str | torch.device) -> None:
    assert resolve_device(device) == CPU


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "", "cuda:x"])
def test_a_device_that_is_not_here_is_an_error_that_lists_those_that_are(device: str) -> None:
    with pytest.raises(ValueError, match="use 'auto' or one of cpu"):
        resolve_device(device)


@pytest.mark.gpu
def test_cuda_gets_its_index() -> None:
    assert resolve_device("cuda") == torch.device("cuda", torch.cuda.current_device())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_by_name_and_by_value(dtype: torch.dtype) -> None:
    assert resolve_dtype(dtype) is dtype
    assert resolve_dtype(str(dtype).removeprefix("torch.")) is dtype


@pytest.mark.parametrize("dtype", ["float16", torch.bfloat16, torch.int64, ""])
def test_other_dtypes_are_an_error(dtype: str | torch.dtype) -> None:
    with pytest.raises(ValueError, match="use one of float32, float64"):
        resolve_dtype(dtype)


# compiler


@needs_compiler
def test_compiled_agrees_with_eager() -> None:
    x = torch.linspace(-1.0, 1.0, 11, dtype=torch.float64)
    function = compile_function(cubic, device=CPU, mode=True)
    torch.testing.assert_close(function(x), cubic(x))
    assert function.backend == "inductor"
    assert "compiler" in function.reason


def test_not_compiling_on_request() -> None:
    function = compile_function(cubic, device=CPU, mode=False)
    assert (function.backend, function.reason) == ("eager", "asked for")
    assert function(torch.tensor(2.0)) == 4.0


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="use 'auto', 'native', True or False"):
        compile_function(cubic, device=CPU, mode="always")  # type: ignore[arg-type]


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_it_runs_eagerly_and_says_so() -> None:
    function = compile_function(cubic, device=CPU)
    assert function.backend == "eager"
    assert "no C++ compiler found" in function.reason
    assert function(torch.tensor(2.0)) == 4.0


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_insisting_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler found"):
        compile_function(cubic, device=CPU, mode=True)


@pytest.fixture
def broken_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise ValueError("the compiler fell over")

    torch._dynamo.reset()
    if "broken" not in torch._dynamo.list_backends(exclude_tags=None):
        torch._dynamo.register_backend(fail, name="broken")
    monkeypatch.setattr(backends, "find_compiler", lambda device: ("broken", "for the test"))
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("broken_compiler")
def test_a_compiler_that_fails_leaves_the_function_eager_and_says_so() -> None:
    function = compile_function(cubic, device=CPU)
    assert function(torch.tensor(2.0)) == 4.0
    assert function.backend == "eager"
    assert "the compiler fell over" in function.reason


@pytest.mark.usefixtures("broken_compiler")
def test_a_compiler_that_fails_is_an_error_when_insisting() -> None:
    with pytest.raises(Exception, match="the compiler fell over"):
        compile_function(cubic, device=CPU, mode=True)(torch.tensor(2.0))


@needs_compiler
def test_a_fault_of_the_caller_is_not_one_of_the_compiler() -> None:
    function = compile_function(scaled, device=CPU)
    with pytest.raises(RuntimeError, match=r"shape|size"):
        function(torch.ones(2, 3), torch.ones(2, 3))
    assert function.backend == "inductor"


@pytest.mark.parametrize("mode", [False, "auto"])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))], ids=["deepcopy", "pickle"])
def test_copies_compile_again(mode: backends.CompileMode, clone: object) -> None:
    function = compile_function(cubic, device=CPU, mode=mode)
    function(torch.tensor(2.0))
    twin = clone(function)  # type: ignore[operator]
    assert twin.backend == function.backend
    assert twin(torch.tensor(2.0)) == 4.0


# matmul precision


def settings() -> list[str]:
    return [torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.fp32_precision]


@pytest.fixture
def restore_precision() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "none"
    torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.mark.usefixtures("restore_precision")
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_exact_inside_and_as_before_outside(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    before = settings()
    with exact_matmul():
        assert settings() == ["highest", "ieee"]
        with exact_matmul():
            assert settings() == ["highest", "ieee"]
        assert settings() == ["highest", "ieee"]
    assert settings() == before


@pytest.mark.usefixtures("restore_precision")
def test_the_finer_interface_of_newer_torch_is_put_back() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    with exact_matmul():
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"


@pytest.mark.usefixtures("restore_precision")
def test_put_back_after_an_error() -> None:
    torch.set_float32_matmul_precision("high")
    with pytest.raises(KeyError), exact_matmul():
        raise KeyError("inside")
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.usefixtures("restore_precision")
def test_overlapping_threads_stay_exact_until_the_last_leaves() -> None:
    torch.set_float32_matmul_precision("high")
    opened, close = threading.Event(), threading.Event()

    def other() -> None:
        with exact_matmul():
            opened.set()
            close.wait(10.0)

    thread = threading.Thread(target=other)
    thread.start()
    assert opened.wait(10.0)
    with exact_matmul():
        pass
    assert torch.get_float32_matmul_precision() == "highest"
    close.set()
    thread.join(10.0)
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.gpu
@pytest.mark.usefixtures("restore_precision")
def test_products_on_cuda_are_exact_to_float32() -> None:
    torch.set_float32_matmul_precision("high")
    a = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    with exact_matmul():
        product = (a.cuda() @ a.cuda()).cpu().double()
    exact = a.double() @ a.double()
    assert (product - exact).abs().max() < 1e-5 * exact.abs().max()


# threads


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("n_atoms", "n_threads"), [(1, 1), (FEW_ATOMS, 1), (FEW_ATOMS + 1, 2)])
def test_few_atoms_have_one_thread(n_atoms: int, n_threads: int) -> None:
    def fail() -> None:
        with threads_for(n_atoms):
            raise KeyError(torch.get_num_threads())

    with pytest.raises(KeyError, match=f"^{n_threads}$"):
        fail()
    assert torch.get_num_threads() == 2
