"""Export weights to other formats: python -m recon.export checkpoint=<file> out=<folder>."""

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.program import run_program
from recon.cli.run_summary import describe_network, print_config, print_summary
from recon.cli.runtime import configure_malloc, silence_known_warnings

FORMATS = {
    "pretrained": "model.safetensors",
    "official": "weights.pth",
    "onnx": "network.onnx",
    "torch_export": "network.pt2",
}
"""File name of the weights or graph, by format."""


def export(cfg: DictConfig) -> str:
    """Export the checkpoint of a configuration; return the path or address of the result."""
    # Imported here, because it takes seconds: --help and a misspelled option should not wait.
    from recon.checkpoints.hub import push_to_hub, save_pretrained
    from recon.utils.progress import show_status

    if cfg.format not in FORMATS:
        raise ValueError(f"format={cfg.format}: choose {', '.join(FORMATS)}")
    if cfg.push and cfg.format != "pretrained":
        raise ValueError(f"push=true uploads format=pretrained, not {cfg.format}")
    silence_known_warnings()
    configure_malloc()
    settings = dict(cfg.network)
    print_config(cfg)
    if cfg.push:
        with show_status(f"uploading {cfg.checkpoint} to {cfg.out}"):
            address = push_to_hub(
                cfg.checkpoint, cfg.out, license=cfg.license, private=cfg.private, **settings
            )
        print(f"uploaded to {address}")
        return address
    if cfg.format == "pretrained":
        with show_status(f"writing {cfg.checkpoint} to {cfg.out}"):
            folder = save_pretrained(cfg.checkpoint, cfg.out, license=cfg.license, **settings)
        print(f"written to {folder}: config.json, model.safetensors and README.md, the model card")
        return str(folder)
    return str(_export_file(cfg, settings))


def _export_file(cfg: DictConfig, settings: dict[str, Any]) -> Path:
    """Write a file in the released format or a graph; never overwrite an existing file."""
    from recon.checkpoints.graph_export import export_graph
    from recon.checkpoints.loading import load, read_task
    from recon.checkpoints.provenance import read_provenance
    from recon.checkpoints.writer import write_official_checkpoint
    from recon.utils.progress import show_status

    target = Path(cfg.out) / FORMATS[cfg.format]
    if target.exists():
        raise FileExistsError(f"{target}: already exists: choose another folder, out=<folder>")
    task: Any = read_task(cfg.checkpoint)
    network: Any = load(cfg.checkpoint, task=task, **settings)
    if cfg.format == "official":
        write_official_checkpoint(
            network, target, epoch=read_provenance(cfg.checkpoint).get("epoch", 1) - 1
        )
        print(f"written to {target}: num_heads, num_groups and class names are not in this format")
        return target
    rows = {
        "format": cfg.format,
        "checkpoint": str(cfg.checkpoint),
        "network": describe_network(network),
        "output": str(target),
    }
    print_summary("export", rows)
    result = export_graph(network, target, cfg.num_points, cfg.format, show_status)
    print(
        f"written to {target}: clouds of {cfg.num_points} points, batches of any size; outputs "
        f"{', '.join(result.output_names)}, error at most {result.max_error:.0e}"
    )
    return target


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="export")
def main(cfg: DictConfig) -> None:
    """Export with command-line options; input errors are printed in one line."""
    with one_line_errors():
        export(cfg)


if __name__ == "__main__":
    run_program("export", main)
