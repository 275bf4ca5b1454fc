"""Benchmark optimized paths against reference implementations, in turns and on one thread.

python scripts/bench/run.py                   # all comparisons and measurements: half an hour
python scripts/bench/run.py only=fps,self     # some comparisons: minutes
python scripts/bench/run.py also=memory       # further measurements: stages, growth, memory, data

Times are medians over rounds, in CPU seconds; on CUDA in seconds of wall time. The outputs of both
paths are compared before they are timed. Writes outputs/bench.json (ratios and times) and
outputs/bench.png.
"""

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scaling
import torch
from comparisons import COMPARISONS, build_base_model, make_pretraining_step
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from timing import DEVICE, Comparison, count_gflops, measure_peak_gflops, one_thread

from recon.cli.runtime import configure_malloc

PEAK_BATCH = 128


def plot_ratios(rows: list[Comparison], path: Path) -> None:
    """Plot the ratios as bars."""
    figure = Figure(figsize=(8, 0.8 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([row.name for row in rows], [row.speedup for row in rows], color="#e8743b")
    axes.bar_label(bars, [f"{row.speedup:.1f}" for row in rows], padding=3)
    axes.axvline(1, color="#667085", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel(f"times as fast as the reference, on {DEVICE}, one thread")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def measure_stage_shares() -> dict[str, Any]:
    """Return each stage's share of a step's time, and the step's share of peak GFLOP/s."""
    shares: dict[str, Any] = {}
    for name, batch, bf16 in (("float32", 8, False), ("bfloat16", 32, True)):
        parts = scaling.time_stages(batch, bf16=bf16)
        step = make_pretraining_step(build_base_model(), batch, bf16=bf16, fast=True)
        seconds = scaling.time_best(step)
        gflops, peak = count_gflops(step) / seconds, measure_peak_gflops(getattr(torch, name))
        shares[name] = {
            "batch": batch,
            "share_of_stage": {stage: part / sum(parts.values()) for stage, part in parts.items()},
            "gflop_per_second": gflops,
            "peak_gflop_per_second": peak,
            "share_of_peak": gflops / peak,
        }
    return shares


def measure_peak_memory() -> dict[str, float]:
    """Return the peak memory in GB of a step of the base model."""
    settings: dict[str, dict[str, Any]] = {
        "default": {},
        "checkpoint_activations": {"checkpoint_activations": True},
        "embed_visible_only": {"embed_visible_only": True},
    }
    return {
        name: scaling.measure_peak_memory(PEAK_BATCH, **options)
        for name, options in settings.items()
    }


def measure_data_loading() -> dict[str, float]:
    """Return the seconds of reading a batch and of a step on it."""
    return scaling.time_data_loading(
        scaling.time_best(make_pretraining_step(build_base_model(), 32, bf16=True, fast=True))
    )


EXTRA_MEASUREMENTS: dict[str, Callable[[], Any]] = {
    "stages": measure_stage_shares,
    "growth": lambda: [*scaling.time_scaling(bf16=False)],
    f"memory_gb_at_batch_{PEAK_BATCH}": measure_peak_memory,
    "data": measure_data_loading,
}


def run_extra(console: Console, selected: list[str]) -> dict[str, Any]:
    """Run and print the selected further measurements."""
    results = {}
    for name, measure in EXTRA_MEASUREMENTS.items():
        if name.split("_")[0] in selected:
            results[name] = measure()
            console.print(name, style="bold")
            console.print_json(json.dumps(results[name], default=str))
    return results


def main() -> None:
    """Run the selected comparisons, print them and write them to files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usage = "only=<comparisons>, also=<measurements>, rounds=<number>, out=<folder>"
    parser.add_argument("options", nargs="*", help=usage)
    options = dict(option.split("=", 1) for option in parser.parse_args().options)
    names = options.get("only", "" if "also" in options else ",".join(COMPARISONS)).split(",")
    selected = options.get("also", "" if "only" in options else "stages,growth,memory,data").split(
        ","
    )
    if unknown := {*filter(None, names)} - {*COMPARISONS}:
        parser.error(f"only={','.join(unknown)}: choose among {', '.join(COMPARISONS)}")
    out = Path(options.get("out", "outputs"))
    configure_malloc()
    console, rows = Console(), list[Comparison]()
    with one_thread():
        for name in filter(None, names):
            for row in COMPARISONS[name](int(options.get("rounds", 3))):
                console.print(f"{row.name:20} {row.speedup:8.2f}", highlight=False)
                rows.append(row)
        extra = run_extra(console, selected)
    table = Table(
        "",
        "reference, s",
        "optimized, s",
        "reference / optimized",
        box=SIMPLE,
        title=f"on {DEVICE}",
    )
    for row in rows:
        table.add_row(
            row.description,
            f"{row.reference_seconds:.4f}",
            f"{row.optimized_seconds:.4f}",
            f"{row.speedup:.2f}",
        )
    console.print(table)
    results = {
        "ratios": {row.name: round(row.speedup, 3) for row in rows},
        "seconds": {
            row.name: {"reference": row.reference_seconds, "optimized": row.optimized_seconds}
            for row in rows
        },
        **extra,
        "machine": f"{platform.machine()}, {DEVICE}, one thread, torch {torch.__version__}",
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(results, indent=1))
    plot_ratios(rows, out / "bench.png")
    console.print(f"written to {out}/bench.json and bench.png", highlight=False)


if __name__ == "__main__":
    main()
