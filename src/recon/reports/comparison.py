"""A table and a plot of what several runs measured, by the options in which they differ."""

import json
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from recon.utils.atomic_write import write_atomic
from recon.utils.printable import escape_control_chars

RunMetrics = dict[str, dict[str, list[float]]]
"""Accuracies in %, by the options that were measured, then by name."""
NO_OVERRIDES_LABEL = "as configured"
LOGGED_SUFFIX = ", as logged"
"""Ends the names of measures that are no accuracies in %."""


def report_comparison(metrics: RunMetrics, folder: Path) -> None:
    """Print mean and deviation of what runs measured; write them to sweep.json and sweep.png."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    if not metrics:
        return
    plain = all(name.endswith(LOGGED_SUFFIX) for rows in metrics.values() for name in rows)
    title = None if plain else "in %"
    table = Table(Column("options", overflow="fold"), box=SIMPLE, title=title)
    for column in ("measure", "mean", "std", "runs"):
        table.add_column(column)
    for told, rows in metrics.items():
        for name, values in rows.items():
            places = 4 if name.endswith(LOGGED_SUFFIX) else 1
            spread = f"{statistics.stdev(values):.{places}f}" if len(values) > 1 else "-"
            mean = f"{statistics.mean(values):.{places}f}"
            table.add_row(
                escape(escape_control_chars(shorten_options(told) or NO_OVERRIDES_LABEL)),
                escape(escape_control_chars(name)),
                mean,
                spread,
                str(len(values)),
            )
    Console().print(table)
    write_atomic(folder / "sweep.json", json.dumps(metrics, indent=1).encode())
    plot_comparison(metrics, folder / "sweep.png")


def shorten_options(options: str) -> str:
    """Return options with numbers of three digits: those that a search draws have seventeen."""
    return re.sub(r"\d+\.\d{7,}(e-?\d+)?", lambda found: f"{float(found[0]):.3g}", options)


def _along(options: Sequence[str]) -> tuple[str, list[float]] | None:
    """Return the option and its values where one numeric option is all that differs."""
    keys, values = zip(*(word.partition("=")[::2] for word in options), strict=True)
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return (keys[0], numbers) if len(set(keys)) == 1 and len(numbers) > 1 else None


def plot_comparison(metrics: RunMetrics, path: Path) -> None:
    """Draw a panel a measure: a line along a numeric option, else a bar for each of the options.

    Bars of error are deviations over repeats.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for rows in metrics.values() for name in rows))
    along = _along([*metrics])
    height = 2.6 if along else 1.2 + 0.3 * len(metrics)
    width = (
        7 if along else 5 + 0.07 * max(len(shorten_options(told)) for told in metrics)
    )  # need room
    mpl.rcParams["text.parse_math"] = False  # what is drawn are names
    figure = Figure(figsize=(width, height * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), squeeze=False)[:, 0], names, strict=True):
        rows = {told: measured[name] for told, measured in metrics.items() if name in measured}
        means = [statistics.mean(values) for values in rows.values()]
        spread = [statistics.stdev(v) if len(v) > 1 else math.nan for v in rows.values()]
        unit = "" if name.endswith(LOGGED_SUFFIX) else "%"
        if along:
            at = dict(zip(metrics, along[1], strict=True))
            order = sorted(range(len(means)), key=lambda i: [at[told] for told in rows][i])
            x = sorted(at[told] for told in rows)
            y, error = [means[i] for i in order], [spread[i] for i in order]
            axes.errorbar(x, y, error, marker="o", capsize=3)
            axes.set(xlabel=along[0], ylabel=unit, title=name)
        else:
            places = range(len(rows))
            axes.barh(places, means, xerr=spread, capsize=3)
            axes.set_yticks(places, [shorten_options(told) or NO_OVERRIDES_LABEL for told in rows])
            axes.invert_yaxis()
            axes.set(xlabel=unit, title=name)
    figure.savefig(path, dpi=130)
