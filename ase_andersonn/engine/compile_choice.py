"""Which functions the calls of a calculator use: eager, with kernels in C++, or compiled by torch."""

import logging

from ase_andersonn.backends import EAGER_SECONDS, CompileMode
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import Settings

from .compiled import compiled_model
from .native import library
from .native.model import check_kernel, has_kernel
from .optimize.kept import MODES, kept_choice

logger = logging.getLogger(__name__)

KERNEL_SECONDS = 1.0
"""Work that a calculator does before it has the kernels built, in a process of its own."""


class CompileChoice:
    """The compile mode of a calculator's calls.

    `"auto"` follows the choice that the machine's cache keeps for the model, see `optimize.choose`. Without one it uses
    kernels in C++ on a CPU where the cache holds them, and else has them built in the background while calls go on;
    models without kernels, and GPUs, are compiled by torch after `EAGER_SECONDS` of work. Compilation by torch that a
    choice prefers starts at once only where the calculator was asked to be optimized.

    Args:
        model: the model.
        settings: see `AndersoNN`.

    Raises:
        ValueError, RuntimeError: for `"native"` where there are no kernels, or they cannot be built.
    """

    def __init__(self, model: EnergyModel, settings: Settings) -> None:
        self.asked, self.model, self.settings = settings.compile, model, settings
        self.kept = kept_choice(model, settings.device) if self.asked == "auto" else None
        self.has_kernel = has_kernel(model, settings.device)
        self.is_ready = self.has_warned = False
        if self.asked == "native":
            check_kernel(model, settings.device)
            if not library.is_built():
                library.build()
            if library.load() is None:
                raise RuntimeError("compile is 'native', but the kernels that were built cannot be loaded.")

    def mode(self, worked: float) -> CompileMode:
        """The mode of the next call, after `worked` seconds of calls; sets the block size that was chosen for it."""
        mode = self._mode(worked)
        if self.kept is not None and mode is MODES[self.kept.chosen.name]:
            compiled_model(self.model, self.settings.device, mode).encoder.block = self.kept.chosen.block
        return mode

    def _mode(self, worked: float) -> CompileMode:
        if self.asked != "auto":
            return self.asked
        if self.kept is not None:
            name = self.kept.chosen.name
            if name == "eager" and (self.has_kernel or self.kept.has_timed("inductor")):
                return False
            if name == "inductor" and self.settings.optimize:
                return True
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
