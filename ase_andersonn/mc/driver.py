"""Base of simulations with the interface of ASE's dynamics: steps, observers, log, trajectory."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ase import Atoms
from ase.utils import IOContext


class Driver(IOContext, ABC):
    """Loop over steps with observers; subclasses implement `step`.

    Attributes:
        nsteps: number of steps made.
    """

    nsteps: int

    def __init__(self, logfile: IO[str] | str | Path | None, loginterval: int) -> None:
        if loginterval < 1:
            raise ValueError(f"loginterval is {loginterval}; a log or trajectory is written every 1 or more steps.")
        self.nsteps = 0
        self.observers: list[tuple[Callable[..., Any], int, tuple[Any, ...], dict[str, Any]]] = []
        self._logfile = logfile
        self._headed = False
        if logfile is not None:
            self.attach(self.log, loginterval)

    @abstractmethod
    def step(self) -> None:
        """One step; see `run`."""

    @abstractmethod
    def log_columns(self) -> list[tuple[str, str]]:
        """Heading and value of each column of the log, of equal width."""

    def irun(self, steps: int) -> Iterator[bool]:
        """Make steps; yields before the first and after each step whether it was the last.

        Observers are called after each step, as in ASE, and before the very first step.
        """
        if steps < 0:
            raise ValueError(f"steps is {steps}; it is the number of further steps, 0 or more.")
        last = self.nsteps + steps
        if self.nsteps == 0:
            self.call_observers()
        yield self.nsteps >= last
        while self.nsteps < last:
            self.step()
            self.nsteps += 1
            self.after_step()
            yield self.nsteps >= last

    def run(self, steps: int) -> bool:
        """Make further steps; returns True when they are completed, as ASE's dynamics do."""
        for _ in self.irun(steps):
            pass
        return True

    def after_step(self) -> None:
        """Call the observers; subclasses add what follows a step."""
        self.call_observers()

    def attach(self, function: Any, interval: int = 1, *args: Any, **kwargs: Any) -> None:
        """Call a function, or the method `write` of an object, every `interval` steps, or once after -`interval`."""
        self.observers.append((function if callable(function) else function.write, interval, args, kwargs))

    def call_observers(self) -> None:
        """Call the observers that are due at this step."""
        for function, interval, args, kwargs in self.observers:
            if self.nsteps % interval == 0 if interval > 0 else self.nsteps == -interval:
                function(*args, **kwargs)

    def log(self) -> None:
        """Write a line of the log."""
        columns = self.log_columns()
        text = " ".join(value for _, value in columns) + "\n"
        if not self._headed:
            text = " ".join(head for head, _ in columns) + "\n" + text
            self._headed = True
        if self._logfile is None:
            return
        if self._logfile == "-":
            sys.stdout.write(text)
        elif isinstance(self._logfile, str | Path):
            with Path(self._logfile).open("a") as file:  # opened for each line, so that no line is lost
                file.write(text)
        else:
            self._logfile.write(text)


def write_image(trajectory: Any, atoms: Atoms, energy: float, description: dict[str, Any]) -> None:
    """Append a structure with its energy to a trajectory, a path or one of ASE's writers.

    A copy is written, as the calculator may have the results of a rejected move.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.trajectory import TrajectoryWriter

    image = atoms.copy()
    image.calc = SinglePointCalculator(image, energy=energy)
    if hasattr(trajectory, "write"):
        trajectory.write(image)
        return
    with TrajectoryWriter(trajectory, mode="a") as writer:
        writer.set_description(description)
        writer.write(image)
