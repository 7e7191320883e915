"""The report and the picture of `deep_andersonn.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks._common import drawn, markdown_machine, markdown_table

SOLVERS = ("Picard", "Anderson")


def radius_text(radius: dict[str, float]) -> str:
    return f"{radius['median']:.2f} ({radius['largest']:.2f})"


def gain(entries: dict[str, dict[str, Any]], key: str) -> str:
    """What Picard takes over what Anderson takes."""
    return f"{entries['Picard'][key] / entries['Anderson'][key]:.2f}"


def inference_text(rows: list[dict[str, Any]]) -> list[str]:
    table = []
    for row in rows:
        both = row["solvers"]
        line = [f"{row['gamma']:g}", radius_text(row["radius"]), f"{row['tol']:.0e}"]
        for name in SOLVERS:
            entry = both[name]
            line += [f"{entry['applications']:.0f} ({entry['steps']:.1f})", f"{1e3 * entry['cpu']:.0f}"]
        whole = gain(both, "whole_cpu") if "whole_cpu" in both["Picard"] else ""
        table.append([*line, gain(both, "applications"), gain(both, "cpu"), whole])
    header = ["γ", "ρ", "residual", "Picard", "ms", "Anderson", "ms", "applications", "time", "time, whole network"]
    return [
        "## Inference",
        "",
        "Applications of the cell to a block of up to 2,000 atoms, which goes on until its slowest structure is done",
        "(in brackets the mean over structures), CPU time of the solve, and the gains: what Picard takes over what",
        "Anderson takes. ρ: median (largest) over the structures.",
        "",
        markdown_table(header, table),
    ]


def labels_text(study: dict[str, Any]) -> list[str]:
    header = [
        "residual",
        "solver",
        "accuracy",
        "labels that differ from those at 1e-6",
        "largest change of a probability",
    ]
    table = [
        [
            f"{row['tol']:.0e}",
            row["solver"],
            f"{row['accuracy']:.2%}",
            row["other_labels"],
            f"{row['largest_difference']:.0e}",
        ]
        for row in study["rows"]
    ]
    return ["", f"## Accuracy, γ = 0.7, {study['n']:,} test structures", "", markdown_table(header, table)]


def tradeoff_text(studies: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for study in studies:
        windows = sorted({row["window"] for row in study["rows"]})
        mixings = sorted({row["mixing"] for row in study["rows"]})
        cells = {(row["window"], row["mixing"]): row for row in study["rows"]}
        lines += [
            "",
            f"## Window m and mixing β, γ = {study['gamma']:g}, ρ {radius_text(study['radius'])}",
            "",
            f"Applications to a residual of {study['tol']:.0e} · CPU time of the solve, ms · median residual after 8",
            "applications. m = 0 is Picard.",
            "",
        ]
        table = [
            [f"{beta:g}"]
            + [
                f"{cells[m, beta]['applications']:.0f} · {1e3 * cells[m, beta]['cpu']:.0f} · "
                f"{cells[m, beta]['budget_residual']:.0e}"
                for m in windows
            ]
            for beta in mixings
        ]
        lines += [markdown_table(["β", *(f"m = {m}" for m in windows)], table), "", fastest_text(study["rows"])]
    return lines


def fastest_text(rows: list[dict[str, Any]]) -> str:
    """The fastest, beside Picard and the classifier's own setting."""
    cells = {(row["window"], row["mixing"]): 1e3 * row["cpu"] for row in rows}
    (m, beta), best = min(cells.items(), key=lambda item: item[1])
    return (
        f"Fastest: m = {m}, β = {beta:g}, {best:.0f} ms; the classifier's own m = 5, β = 1: {cells[5, 1.0]:.0f} ms; "
        f"Picard: {cells[0, 1.0]:.0f} ms."
    )


def training_text(studies: list[dict[str, Any]]) -> list[str]:
    lines = [
        "",
        "## Training",
        "",
        "The same first weights, batches, dropout and residual (1e-3) for both, their steps in turn. Applications of",
        "the cell and of its transpose: means over the steps of the last epoch, of each step's last block. Converged:",
        "share of the structures, in the worst epoch, whose features and adjoint did so within 200 applications.",
        "ρ: of the test structures. The two runs part as they go on, and so do their ρ; the gradients of a batch are",
        "compared at the same weights, those of Anderson's run.",
    ]
    for study in studies:
        table = []
        for name in SOLVERS:
            curve = study["curves"][name]
            last = curve[-1]
            seconds = sum(epoch["cpu"] for epoch in curve)
            line = [name, f"{last['accuracy']:.1%}", f"{max(e['accuracy'] for e in curve):.1%}", f"{seconds:.0f}"]
            converged = f"{min(epoch['converged'] for epoch in curve):.1%}"
            applications = f"{last['forward']:.1f} + {last['adjoint']:.1f}"
            table.append([*line, applications, converged, radius_text(last["radius"])])
        header = ["solver", "accuracy", "best", "CPU time, s", "applications", "converged", "ρ"]
        epochs = len(study["curves"]["Picard"])
        title = f"### γ = {study['gamma']:g}, {study['n_train']:,} structures, {epochs} epochs"
        lines += ["", title, "", markdown_table(header, table), "", *step_text(study["steps"])]
    return lines


def step_text(steps: list[dict[str, Any]]) -> list[str]:
    by_tol: dict[float, dict[str, dict[str, Any]]] = {}
    for entry in steps:
        by_tol.setdefault(entry["tol"], {})[entry["solver"]] = entry
    table = []
    for tol, both in by_tol.items():
        line = [f"{tol:.0e}"]
        for name in SOLVERS:
            line += [f"{both[name]['forward']} + {both[name]['adjoint']}", f"{1e3 * both[name]['cpu']:.0f}"]
        table.append([*line, gain(both, "cpu")])
    header = ["residual", "Picard", "ms", "Anderson", "ms", "time"]
    return ["Gradients of a batch of 64, with the weights at the end, and the gain:", "", markdown_table(header, table)]


def conclusions(rows: list[dict[str, Any]]) -> list[str]:
    """The gains in CPU time of the solve over residual and spectral radius, and what they come to."""
    tolerances = sorted({row["tol"] for row in rows}, reverse=True)
    by_key = {(row["gamma"], row["tol"]): row for row in rows}
    gammas = sorted({row["gamma"] for row in rows})
    values = {key: row["solvers"]["Picard"]["cpu"] / row["solvers"]["Anderson"]["cpu"] for key, row in by_key.items()}
    trained = [values[gammas[0], tol] for tol in tolerances]
    radius = by_key[gammas[0], tolerances[0]]["radius"]["largest"]
    header = ["residual", *(f"ρ {by_key[gamma, tolerances[0]]['radius']['largest']:.2f}" for gamma in gammas)]
    table = [[f"{tol:.0e}", *(f"{values[gamma, tol]:.2f}" for gamma in gammas)] for tol in tolerances]
    return [
        "Picard's CPU time over Anderson's, of the solve alone, against the largest ρ of a block. With the cell as it",
        f"was trained (γ = {gammas[0]:g}, ρ at most {radius:.2f}) it is {min(trained):.2f} to {max(trained):.2f}; the",
        f"largest value is {max(values.values()):.1f}.",
        "",
        markdown_table(header, table),
        "",
    ]


def report(data: dict[str, Any]) -> str:
    lines = ["# Anderson and forward iteration of one equilibrium classifier", ""]
    if "inference" in data:
        lines += conclusions(data["inference"])
    lines += ["![gain against spectral radius, window and mixing, training](deep_andersonn.png)", ""]
    for part, facts in data.get("machine", {}).items():
        lines += [f"{part} ({data['cpu_seconds'][part]} s of CPU time): {markdown_machine(facts)}", ""]
    if "inference" in data:
        lines += inference_text(data["inference"]) + labels_text(data["labels"])
    if "tradeoff" in data:
        lines += tradeoff_text(data["tradeoff"])
    if "training" in data:
        lines += training_text(data["training"])
    return "\n".join(lines)


def draw(data: dict[str, Any], path: Path) -> None:
    """Gain against ρ, CPU time over window and mixing at the stiffer cell, accuracy against CPU time in training."""
    with drawn(path, (15, 4.2), columns=3) as (left, middle, right):
        draw_gain(left, data["inference"])
        draw_tradeoff(middle, data["tradeoff"][-1])
        draw_training(right, data["training"])


def draw_gain(axes: Any, rows: list[dict[str, Any]]) -> None:
    for k, tol in enumerate(sorted({row["tol"] for row in rows}, reverse=True)):
        own = [row for row in rows if row["tol"] == tol]
        radii = [row["radius"]["largest"] for row in own]
        for key, style in (("cpu", "-"), ("applications", ":")):
            gains = [row["solvers"]["Picard"][key] / row["solvers"]["Anderson"][key] for row in own]
            label = f"{tol:.0e}" if key == "cpu" else None
            axes.plot(radii, gains, f"o{style}", color=f"C{k}", markersize=4, label=label)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set(xlabel="largest spectral radius ρ of a block", ylabel="Picard / Anderson", title="gain in inference")
    axes.legend(title="residual; dotted: applications")


def draw_tradeoff(axes: Any, study: dict[str, Any]) -> None:
    windows = sorted({row["window"] for row in study["rows"]})
    mixings = sorted({row["mixing"] for row in study["rows"]})
    cells = {(row["window"], row["mixing"]): row for row in study["rows"]}
    times = [[1e3 * cells[m, beta]["cpu"] for m in windows] for beta in mixings]
    shown = axes.imshow(times, cmap="YlOrRd", aspect="auto", origin="lower")
    for i, beta in enumerate(mixings):
        for j, m in enumerate(windows):
            text = f"{cells[m, beta]['applications']:.0f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(windows)), windows)
    axes.set_yticks(range(len(mixings)), mixings)
    title = f"applications to {study['tol']:.0e}, γ = {study['gamma']:g}"
    axes.set(xlabel="window m (0: Picard)", ylabel="mixing β", title=title)
    axes.figure.colorbar(shown, label="CPU time of the solve, ms")


def draw_training(axes: Any, studies: list[dict[str, Any]]) -> None:
    for k, study in enumerate(studies):
        for name, style in zip(SOLVERS, ("--", "-"), strict=True):
            seconds = 0.0
            points = []
            for epoch in study["curves"][name]:
                seconds += epoch["cpu"]
                points.append((seconds, epoch["accuracy"]))
            label = f"{name}, γ = {study['gamma']:g}"
            axes.plot(*zip(*points, strict=True), f"o{style}", color=f"C{k}", markersize=4, label=label)
    axes.set(xlabel="CPU time, s", ylabel="accuracy on test structures", title="training")
    axes.legend()
