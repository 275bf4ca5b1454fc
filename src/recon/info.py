"""What weights are, whence, and what they are worth: python -m recon.info <file>."""

import json
import re
import sys
from typing import Any

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.overrides import quote_override
from recon.cli.renamed_options import check_renamed_options

_OPTION = re.compile(r"(checkpoint|json|num_points|network(\.\w+)?|hydra(\.\w+)*)=|-")


def inspect_checkpoint(cfg: DictConfig) -> dict[str, Any]:
    """Print what is known of a source of weights, as a table or as JSON; return it."""
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from recon.checkpoints.hub import summarize_network
    from recon.checkpoints.loading import load, read_task
    from recon.checkpoints.provenance import read_provenance

    origin, task = read_provenance(cfg.checkpoint), read_task(cfg.checkpoint)
    asked: Any = task
    network: Any = load(cfg.checkpoint, task=asked, **cfg.network)
    found = {
        "checkpoint": str(cfg.checkpoint),
        "network": summarize_network(network)
        | {"parameters": sum(p.numel() for p in network.parameters())}
        | {"flops": count_flops(network, cfg.num_points), "flops of points": cfg.num_points},
        **{name: value for name, value in origin.items() if name != "config"},
    }
    if cfg.json:
        print(json.dumps(found, indent=1))
    else:
        _show(found)
    return found


def count_flops(network: Any, num_points: int) -> int:
    """Return the floating-point operations of one cloud, those of matrix products, forward.

    A multiplication and an addition are two. Farthest points, neighbours and norms are not counted.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from recon.models.segmenter import Segmenter

    device = next(network.parameters()).device
    cloud = torch.rand(1, num_points, getattr(network, "channels", 3), device=device)
    counter = FlopCounterMode(display=False)
    # The counter does not know the fused attention of CPUs: as plain products it does.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        if not isinstance(network, Segmenter):
            network.encode(cloud)
        elif network.num_objects is None:
            network(cloud)
        else:
            network(cloud, torch.zeros(1, dtype=torch.long, device=device))
    return int(counter.get_total_flops())


def _show(found: dict[str, Any]) -> None:
    """Print tables: what it is, where it comes from, what it is worth."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from recon.checkpoints.hub import format_metric, format_value
    from recon.utils.printable import escape_control_chars

    console, network = Console(), dict(found["network"])
    flops, points = network.pop("flops"), network.pop("flops of points")
    network["parameters"] = f"{network['parameters']:,}"
    network["FLOPs"] = f"{flops / 1e9:.2f} G a cloud of {points:,} points, forward"
    sections = {"": network, "format": found.get("format"), "run": found.get("name")}
    sections |= {"data": found.get("data"), "recipe": found.get("recipe")}
    sections |= {"hardware": found.get("hardware")}
    sections |= {"reached": {n: found[n] for n in ("epoch", "step") if n in found}}
    table = Table("", "", title=escape(found["checkpoint"]), box=SIMPLE, show_header=False)
    for section, held in sections.items():
        rows = held.items() if isinstance(held, dict) else [("", held)]
        for name, value in rows:
            if value not in (None, "", [], {}):
                line = (f"{section} {name}".strip(), format_value(value))
                table.add_row(*(escape(escape_control_chars(text)) for text in line))
    console.print(table)
    metrics = found.get("metrics") or []
    if not metrics:
        console.print("no figures: its run left no results.json beside it")
        return
    worth = Table("measure", "value", "95 % interval", "protocol", box=SIMPLE)
    for row in metrics:
        worth.add_row(*(escape(escape_control_chars(text)) for text in format_metric(row).values()))
    console.print(worth)


def quote_checkpoint_argument(arguments: list[str]) -> list[str]:
    """Write a first word that is no option as Hydra reads it, whatever a file may be called."""
    if not arguments or _OPTION.match(arguments[0]):
        return arguments
    return [quote_override(f"checkpoint={arguments[0]}", "checkpoint"), *arguments[1:]]


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="info")
def main(cfg: DictConfig) -> None:
    """Tell what the command line asks; wrong input ends in one line."""
    with one_line_errors():
        inspect_checkpoint(cfg)


if __name__ == "__main__":
    check_renamed_options("info", sys.argv[1:])
    sys.argv[1:] = quote_checkpoint_argument(sys.argv[1:])
    main()
