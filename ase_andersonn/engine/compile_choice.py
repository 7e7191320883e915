"""Which functions the calls of a calculator use: eager, with kernels in C++, or compiled by torch."""

import logging

from ase_andersonn.backends import EAGER_SECONDS, CompileMode
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import Settings

from .native import library
from .native.model import check_kernel, has_kernel

logger = logging.getLogger(__name__)

KERNEL_SECONDS = 1.0
"""Work that a calculator does before it has the kernels built, in a process of its own."""


class CompileChoice:
    """The compile mode of a calculator's calls.

    On a CPU, `"auto"` uses kernels in C++ where the machine's cache holds them, and else has them built in the
    background while calls go on; models without kernels, and GPUs, are compiled by torch after `EAGER_SECONDS` of work.

    Args:
        model: the model.
        settings: see `AndersoNN`.

    Raises:
        ValueError, RuntimeError: for `"native"` where there are no kernels, or they cannot be built.
    """

    def __init__(self, model: EnergyModel, settings: Settings) -> None:
        self.asked = settings.compile
        self.has_kernel = has_kernel(model, settings.device)
        self.is_ready = self.has_warned = False
        if self.asked == "native":
            check_kernel(model, settings.device)
            if not library.is_built():
                library.build()
            if library.load() is None:
                raise RuntimeError("compile is 'native', but the kernels that were built cannot be loaded.")

    def mode(self, worked: float) -> CompileMode:
        """The mode of the next call, after `worked` seconds of calls."""
        if self.asked != "auto":
            return self.asked
        if self.has_kernel:
            if not self.is_ready and library.is_built():
                self.is_ready = library.load() is not None
            if self.is_ready:
                return "native"
            if worked > KERNEL_SECONDS:
                process = library.build_in_background()
                if process is not None and process.poll():
                    library.warn_of_failure(process)
            return False
        if worked <= EAGER_SECONDS:
            return False
        if not self.has_warned:
            self.has_warned = True
            logger.warning("compiling the model: the next calls take a minute or more longer, all later ones less time")
        return "auto"
