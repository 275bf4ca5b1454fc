"""Inspect a checkpoint: python -m recon.info <file>."""

import json
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.options.overrides import quote_override
from recon.cli.program import run_program

_OPTIONS = ("checkpoint", "json", "num_points", "network", "hydra", "source")


def inspect_checkpoint(cfg: DictConfig) -> dict[str, Any]:
    """Print a checkpoint's properties, as a table or as JSON; return them."""
    # Imported here, because it takes seconds: --help and a misspelled option should not wait.
    from recon.checkpoints.hub import summarize_network
    from recon.checkpoints.loading import load, read_task
    from recon.checkpoints.provenance import read_provenance

    provenance = read_provenance(cfg.checkpoint)
    task: Any = read_task(cfg.checkpoint)
    network: Any = load(cfg.checkpoint, task=task, **cfg.network)
    summary = {
        "checkpoint": str(cfg.checkpoint),
        "network": summarize_network(network)
        | {"parameters": sum(p.numel() for p in network.parameters())}
        | {"flops": count_flops(network, cfg.num_points), "points per cloud": cfg.num_points},
        **{name: value for name, value in provenance.items() if name != "config"},
    }
    if cfg.json:
        print(json.dumps(summary, indent=1))
    else:
        _print_summary(summary)
    return summary


def count_flops(network: Any, num_points: int) -> int:
    """Return the floating-point operations of the forward pass of one cloud.

    Only matrix products are counted, a multiplication and an addition as two. Farthest point
    sampling, neighbor search and norms are not counted.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from recon.models.segmenter import Segmenter

    device = next(network.parameters()).device
    cloud = torch.rand(1, num_points, getattr(network, "channels", 3), device=device)
    counter = FlopCounterMode(display=False)
    # The counter ignores the fused attention of CPUs, but counts its plain matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        if not isinstance(network, Segmenter):
            network.encode(cloud)
        elif network.num_objects is None:
            network(cloud)
        else:
            network(cloud, torch.zeros(1, dtype=torch.long, device=device))
    return int(counter.get_total_flops())


def _print_summary(summary: dict[str, Any]) -> None:
    """Print the properties of a checkpoint and its metrics as tables."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from recon.checkpoints.hub import format_metric, format_value
    from recon.utils.printable import escape_control_chars

    console, network = Console(), dict(summary["network"])
    flops, points = network.pop("flops"), network.pop("points per cloud")
    network["parameters"] = f"{network['parameters']:,}"
    network["FLOPs"] = f"{flops / 1e9:.2f} G per cloud of {points:,} points, forward"
    sections = {"": network, "format": summary.get("format"), "run": summary.get("name")}
    sections |= {name: summary.get(name) for name in ("data", "recipe", "hardware")}
    sections |= {"saved at": {n: summary[n] for n in ("epoch", "step") if n in summary}}
    table = Table("", "", title=escape(summary["checkpoint"]), box=SIMPLE, show_header=False)
    for section, content in sections.items():
        rows = content.items() if isinstance(content, dict) else [("", content)]
        for name, value in rows:
            if value not in (None, "", [], {}):
                line = (f"{section} {name}".strip(), format_value(value))
                table.add_row(*(escape(escape_control_chars(text)) for text in line))
    console.print(table)
    metrics = summary.get("metrics") or []
    if not metrics:
        console.print("no metrics: the results.json of its run was not found")
        return
    results = Table("measure", "value", "95 % interval", "protocol", box=SIMPLE)
    for row in metrics:
        cells = format_metric(row).values()
        results.add_row(*(escape(escape_control_chars(text)) for text in cells))
    console.print(results)


def quote_checkpoint_argument(arguments: list[str]) -> list[str]:
    """Turn a first argument that is not an option into a quoted Hydra override of `checkpoint`."""
    if not arguments or arguments[0].startswith("-"):
        return arguments
    name, equals, _ = arguments[0].lstrip("+~").partition("=")
    is_misspelled = get_close_matches(name, _OPTIONS) and not Path(arguments[0]).exists()
    if equals and (name.split(".")[0] in _OPTIONS or is_misspelled):
        return arguments
    return [quote_override(f"checkpoint={arguments[0]}", "checkpoint"), *arguments[1:]]


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="info")
def main(cfg: DictConfig) -> None:
    """Inspect a checkpoint with command-line options; input errors are printed in one line."""
    with one_line_errors():
        inspect_checkpoint(cfg)


if __name__ == "__main__":
    sys.argv[1:] = quote_checkpoint_argument(sys.argv[1:])
    run_program("info", main)
