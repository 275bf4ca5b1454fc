"""Print, save and plot the metrics of several runs, grouped by the options that differ."""

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recon.utils.atomic_write import write_atomic
from recon.utils.printable import escape_control_chars
from recon.utils.results_file import SCHEMA_VERSION, build_metric, describe_version

RunMetrics = dict[str, dict[str, list[float]]]
"""Values of all repeats, by the options of the runs, then by metric. Accuracies are in %."""
NO_OVERRIDES_LABEL = "default configuration"
"""Row label of runs without overrides."""
LOGGED_SUFFIX = ", as logged"
"""Suffix of metrics that were read from the log and are not in %."""


def report_comparison(
    metrics: RunMetrics, folder: Path, seeds: Mapping[str, Sequence[int | None]] | None = None
) -> None:
    """Print the mean and standard deviation of each metric; write sweep.json and sweep.png.

    `seeds` are those of the runs with results, by their options.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    if not metrics:
        return
    only_logged = all(name.endswith(LOGGED_SUFFIX) for rows in metrics.values() for name in rows)
    title = None if only_logged else "Metrics in %"
    table = Table(Column("options", overflow="fold"), box=SIMPLE, title=title)
    for column in ("metric", "mean", "std", "runs"):
        table.add_column(column)
    for options, rows in metrics.items():
        for name, values in rows.items():
            digits = 4 if name.endswith(LOGGED_SUFFIX) else 1
            deviation = f"{statistics.stdev(values):.{digits}f}" if len(values) > 1 else "-"
            mean = f"{statistics.mean(values):.{digits}f}"
            table.add_row(
                escape(escape_control_chars(shorten_options(options) or NO_OVERRIDES_LABEL)),
                escape(escape_control_chars(name)),
                mean,
                deviation,
                str(len(values)),
            )
    Console().print(table)
    content = build_sweep_results(metrics, seeds or {})
    write_atomic(folder / "sweep.json", json.dumps(content, indent=1).encode())
    plot_comparison(metrics, folder / "sweep.png")


def build_sweep_results(
    metrics: RunMetrics, seeds: Mapping[str, Sequence[int | None]]
) -> dict[str, Any]:
    """Return the content of sweep.json: one row per setting and metric, accuracies as fractions."""
    rows = []
    for options, by_name in metrics.items():
        for name, repeats in by_name.items():
            scale = 1.0 if name.endswith(LOGGED_SUFFIX) else 0.01
            values = [scale * value for value in repeats]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            rows.append(
                {
                    "options": options,
                    "metric": name,
                    **build_metric(statistics.mean(values)),
                    "std": deviation,
                    "values": values,
                    "seeds": [*seeds.get(options, ())],
                }
            )
    return {"schema_version": SCHEMA_VERSION, **describe_version(), "rows": rows}


def shorten_options(options: str) -> str:
    """Round long numbers to three significant digits: sampled values have up to 17."""
    return re.sub(r"\d+\.\d{7,}(e-?\d+)?", lambda match: f"{float(match[0]):.3g}", options)


def _find_numeric_option(options: Sequence[str]) -> tuple[str, list[float]] | None:
    """Return the name and values of the option if only one numeric option differs, else None."""
    keys, values = zip(*(option.partition("=")[::2] for option in options), strict=True)
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return (keys[0], numbers) if len(set(keys)) == 1 and len(numbers) > 1 else None


def plot_comparison(metrics: RunMetrics, path: Path) -> None:
    """Plot one panel per metric: a line over a numeric option, else one bar per setting.

    Error bars are standard deviations over repeats.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for rows in metrics.values() for name in rows))
    numeric_option = _find_numeric_option([*metrics])
    height = 2.6 if numeric_option else 1.2 + 0.3 * len(metrics)
    longest_label = max(len(shorten_options(options)) for options in metrics)
    width = 7 if numeric_option else 5 + 0.07 * longest_label
    with mpl.rc_context({"text.parse_math": False}):  # labels are option names, not formulas
        figure = Figure(figsize=(width, height * len(names)), layout="constrained")
        for axes, name in zip(figure.subplots(len(names), squeeze=False)[:, 0], names, strict=True):
            rows = {options: values[name] for options, values in metrics.items() if name in values}
            unit = "as logged" if name.endswith(LOGGED_SUFFIX) else "%"
            if numeric_option:
                value_of = dict(zip(metrics, numeric_option[1], strict=True))
                _plot_line(axes, {value_of[row]: values for row, values in rows.items()})
                axes.set(xlabel=numeric_option[0], ylabel=unit, title=name)
            else:
                _plot_bars(axes, rows)
                axes.set(xlabel=unit, title=name)
        figure.savefig(path, dpi=130)


def _measure_spread(repeats: Iterable[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Return the means, and the standard deviations, NaN for a single value."""
    rows = [*repeats]
    means = [statistics.mean(values) for values in rows]
    return means, [statistics.stdev(v) if len(v) > 1 else math.nan for v in rows]


def _plot_line(axes: Any, repeats_by_value: Mapping[float, Sequence[float]]) -> None:
    x = sorted(repeats_by_value)
    means, deviations = _measure_spread(repeats_by_value[value] for value in x)
    axes.errorbar(x, means, deviations, marker="o", capsize=3)


def _plot_bars(axes: Any, repeats_by_options: Mapping[str, Sequence[float]]) -> None:
    means, deviations = _measure_spread(repeats_by_options.values())
    axes.barh(range(len(means)), means, xerr=deviations, capsize=3)
    labels = [shorten_options(options) or NO_OVERRIDES_LABEL for options in repeats_by_options]
    axes.set_yticks(range(len(means)), labels)
    axes.invert_yaxis()
