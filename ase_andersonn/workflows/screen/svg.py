"""Pictures of a report as SVG, a few kilobytes each: curves, phonon bands, and a crystal's cell."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from ase import Atoms

WIDTH, HEIGHT = 380, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 42
MAX_ATOMS = 200
"""Of a cell that is drawn."""


@dataclass(frozen=True)
class Series:
    """Points of a curve; `style` is a class of the report's style sheet."""

    x: Sequence[float]
    y: Sequence[float]
    style: str = "line"


def curve(
    series: Sequence[Series], x_label: str, y_label: str, x_marks: Sequence[tuple[float, str]] | None = None
) -> str:
    """Curves in one frame.

    Args:
        series: of which at least one has a point.
        x_label: below.
        y_label: on the left.
        x_marks: places and names for vertical lines, instead of numbers.
    """
    x_low, x_high = _range([value for one in series for value in one.x], 0.0)
    y_low, y_high = _range([value for one in series for value in one.y], 0.06)

    def x_of(value: float) -> float:
        return LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"/>']
    for value in ticks(y_low, y_high):
        parts.append(f'<path class="grid" d="M{LEFT} {y_of(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="right" x="{LEFT - 5}" y="{y_of(value) + 4:.1f}">{value:.6g}</text>')
    marks = [(value, f"{value:.6g}") for value in ticks(x_low, x_high)] if x_marks is None else x_marks
    for value, name in marks:
        parts.append(f'<path class="grid" d="M{x_of(value):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="middle" x="{x_of(value):.1f}" y="{HEIGHT - BOTTOM + 15}">{escape(name)}</text>')
    paths: dict[str, str] = {}  # one of each style: bands are hundreds of curves
    for one in series:
        points = [(x_of(x), y_of(y)) for x, y in zip(one.x, one.y, strict=True)]
        if one.style == "dots":
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
        else:
            text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            paths[one.style] = f"{paths.get(one.style, '')}M{text}"
    parts += [f'<path class="{style}" d="{text}"/>' for style, text in paths.items()]
    middle = f"{TOP + (HEIGHT - TOP - BOTTOM) / 2:.0f}"
    parts.append(f'<text class="middle" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}">{escape(x_label)}</text>')
    parts.append(
        f'<text class="middle" transform="rotate(-90 14 {middle})" x="14" y="{middle}">{escape(y_label)}</text>'
    )
    return f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def bands(segments: Sequence[Any]) -> str:
    """Phonon bands along the path through the Brillouin zone; imaginary frequencies are negative."""
    series, marks = [], dict[float, str]()
    for segment in segments:
        frequencies = np.array(segment["frequencies"], dtype=float)
        series += [Series(segment["distances"], branch.tolist()) for branch in frequencies.T]
        for place, name in zip((segment["distances"][0], segment["distances"][-1]), segment["labels"], strict=True):
            near = next((known for known in marks if abs(known - place) < 1e-3), place)
            before = marks.setdefault(near, name)
            marks[near] = before if name in before.split("|") else f"{before}|{name}"
    ends = min(marks), max(marks)
    return curve([*series, Series(ends, (0.0, 0.0), "zero")], "", "frequency, THz", list(marks.items()))


def cell(atoms: Atoms) -> str:
    """The atoms and the cell, seen from slightly above the first vector; empty for very many atoms."""
    from ase.data import covalent_radii
    from ase.data.colors import jmol_colors
    from ase.utils import rotate

    if not len(atoms) or len(atoms) > MAX_ATOMS:
        return ""
    turn = rotate("-80x,-20y,8x")
    positions = atoms.positions @ turn
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    box = corners @ atoms.cell.array @ turn
    radii = 0.6 * covalent_radii[atoms.numbers]
    shown = np.concatenate([positions, box]) if atoms.cell.rank else positions
    low, high = shown[:, :2].min(0) - 1.0, shown[:, :2].max(0) + 1.0
    scale = 240 / max(high - low)
    width, height = (high - low) * scale

    def place(point: Any) -> tuple[float, float]:
        return (point[0] - low[0]) * scale, height - (point[1] - low[1]) * scale

    parts = []
    for a in range(8):
        for b in range(a + 1, 8):
            if atoms.cell.rank and np.abs(corners[a] - corners[b]).sum() == 1:
                (x1, y1), (x2, y2) = place(box[a]), place(box[b])
                parts.append(f'<path class="edge" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')
    for k in np.argsort(positions[:, 2], kind="stable"):
        x, y = place(positions[k])
        colour = "".join(f"{round(255 * part):02x}" for part in jmol_colors[atoms.numbers[k]])
        parts.append(
            f'<circle class="atom" cx="{x:.1f}" cy="{y:.1f}" r="{radii[k] * scale:.1f}" fill="#{colour}">'
            f"<title>{atoms.symbols[int(k)]} {k}</title></circle>"
        )
    return f'<svg class="cell" viewBox="0 0 {width:.0f} {height:.0f}" role="img">{"".join(parts)}</svg>'


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers of a range."""
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    room = margin * (high - low)
    return low - room, high + room
