"""Export weights to other formats: python -m recon.export checkpoint=<file> out=<folder>."""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from recon.cli.config_dir import conf_dir
from recon.cli.errors import one_line_errors
from recon.cli.renamed_options import check_renamed_options
from recon.cli.runtime import configure_malloc, silence_known_warnings

FORMATS = {
    "pretrained": "model.safetensors",
    "official": "weights.pth",
    "onnx": "network.onnx",
    "torch_export": "network.pt2",
}
"""What is written into the folder, by format."""


def export(cfg: DictConfig) -> str:
    """Write what a configuration asks for; return where it is."""
    # Imported here: they take seconds, which --help and a misspelt option need not wait for.
    from recon.checkpoints.hub import push_to_hub, save_pretrained

    if cfg.format not in FORMATS:
        raise ValueError(f"format={cfg.format}: choose {', '.join(FORMATS)}")
    if cfg.push and cfg.format != "pretrained":
        raise ValueError(f"push=true uploads format=pretrained, not {cfg.format}")
    silence_known_warnings()
    configure_malloc()
    told = dict(cfg.network)
    if cfg.push:
        where = push_to_hub(
            cfg.checkpoint, cfg.out, license=cfg.license, private=cfg.private, **told
        )
        print(f"uploaded to {where}")
        return where
    if cfg.format == "pretrained":
        folder = save_pretrained(cfg.checkpoint, cfg.out, license=cfg.license, **told)
        print(f"written to {folder}: config.json, model.safetensors and README.md, the model card")
        return str(folder)
    return str(_written(cfg, told))


def _written(cfg: DictConfig, told: dict[str, Any]) -> Path:
    """Write one file of the released format or of a graph, never over one that is there."""
    from recon.checkpoints.graph_export import export_graph
    from recon.checkpoints.loading import load, read_task
    from recon.checkpoints.provenance import read_provenance
    from recon.checkpoints.writer import write_official_checkpoint

    target = Path(cfg.out) / FORMATS[cfg.format]
    if target.exists():
        raise FileExistsError(f"{target}: there already: choose another folder, out=<folder>")
    task: Any = read_task(cfg.checkpoint)
    network: Any = load(cfg.checkpoint, task=task, **told)
    if cfg.format == "official":
        write_official_checkpoint(
            network, target, epoch=read_provenance(cfg.checkpoint).get("epoch", 1) - 1
        )
        print(f"written to {target}: num_heads, num_groups and class names are not in this format")
        return target
    made = export_graph(network, target, cfg.num_points, cfg.format)
    print(
        f"written to {target}: clouds of {cfg.num_points} points, any number at a time; outputs "
        f"{', '.join(made.output_names)}, off by at most {made.max_error:.0e}"
    )
    return target


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="export")
def main(cfg: DictConfig) -> None:
    """Export as the command line says; wrong input ends in one line."""
    with one_line_errors():
        export(cfg)


if __name__ == "__main__":
    check_renamed_options("export", sys.argv[1:])
    main()
