"""Write weights for others: python -m recon.export source=<checkpoint> out=<folder> format=onnx."""

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from recon.cli.errors import conf_dir, keep_large_blocks, one_line_errors, quiet

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
    quiet()
    keep_large_blocks()
    told = dict(cfg.network)
    if cfg.push:
        where = push_to_hub(cfg.source, cfg.out, license=cfg.license, private=cfg.private, **told)
        print(f"uploaded to {where}")
        return where
    if cfg.format == "pretrained":
        folder = save_pretrained(cfg.source, cfg.out, license=cfg.license, **told)
        print(f"written to {folder}: config.json, model.safetensors and README.md, the model card")
        return str(folder)
    return str(_written(cfg, told))


def _written(cfg: DictConfig, told: dict[str, Any]) -> Path:
    """Write one file of the released format or of a graph, never over one that is there."""
    from recon.checkpoints.graph_export import export_graph
    from recon.checkpoints.loading import load, task_of
    from recon.checkpoints.provenance import origin_of
    from recon.checkpoints.writer import write_official

    target = Path(cfg.out) / FORMATS[cfg.format]
    if target.exists():
        raise FileExistsError(f"{target}: there already: choose another folder, out=<folder>")
    task: Any = task_of(cfg.source)
    network: Any = load(cfg.source, task=task, **told)
    if cfg.format == "official":
        write_official(network, target, epoch=origin_of(cfg.source).get("epoch", 1) - 1)
        print(f"written to {target}: num_heads, num_groups and class names are not in this format")
        return target
    made = export_graph(network, target, cfg.points, cfg.format)
    print(
        f"written to {target}: clouds of {cfg.points} points, any number at a time; outputs "
        f"{', '.join(made.outputs)}, off by at most {made.error:.0e}"
    )
    return target


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="export")
def main(cfg: DictConfig) -> None:
    """Export as the command line says; wrong input ends in one line."""
    with one_line_errors():
        export(cfg)


if __name__ == "__main__":
    main()
