"""Results of workflows: dataclasses that become JSON and pictures."""

import io
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from ase_andersonn.atomic_write import atomic_write, check_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Result:
    """A property of a structure; units stand in the docstrings of the subclasses. Its text holds the plain numbers."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers, strings, lists and dictionaries, for JSON; what is not finite is None."""
        return {entry.name: plain(getattr(self, entry.name)) for entry in fields(self)}

    def __repr__(self) -> str:
        shown = [(entry.name, getattr(self, entry.name)) for entry in fields(self)]
        texts = [
            f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value!r}"
            for name, value in shown
            if value is None or isinstance(value, bool | int | float | str)
        ]
        return f"{type(self).__name__}({', '.join(texts)})"

    def plot(self, path: str | Path | None = None) -> "Figure":
        """The picture of the result.

        Args:
            path: where given, a file it is written to, in any format that matplotlib writes; replaced whole.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: for an unknown ending.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        target = None if path is None else Path(path)
        check_folder(target)
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        self._draw(figure)
        if target is not None:
            data = io.BytesIO()
            figure.savefig(data, dpi=150, format=target.suffix.removeprefix(".").lower() or "png")
            atomic_write(target, data.getvalue())
        return figure

    @abstractmethod
    def _draw(self, figure: "Figure") -> None: ...


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Atoms):
        entries = {"symbols": value.get_chemical_symbols(), "positions": value.positions}
        return plain({**entries, "cell": value.cell.array, "pbc": value.pbc})
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if is_dataclass(value):
        return {entry.name: plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
