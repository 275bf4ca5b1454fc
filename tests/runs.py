"""Short trainings and embeddings, composed as on the command line, and what they start from."""

import csv
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from recon.checkpoints.loading import build_metadata
from recon.checkpoints.reader import METADATA_KEY
from recon.cli.config_dir import conf_dir
from recon.embed import embed
from recon.layers.grouping import PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from recon.train import train

TINY = ["experiment=pretrain_furniture", "debug=tiny", "~callbacks.report"]


def run(folder: Path, *options: str) -> dict[int, str]:
    """Train for three epochs of five steps; return the total loss of each step."""
    limits = ["trainer.limit_train_batches=5", "trainer.max_epochs=3", f"output_dir={folder}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*TINY, *limits, *options]))
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/total"]]
    return {int(row["step"]): row["train/total"] for row in rows}


EVERY_STEP = [
    "callbacks=within_epochs",
    "callbacks.within.every_n_train_steps=1",
    "+callbacks.within.save_top_k=-1",
    'callbacks.within.filename="{step}"',
]

EMBED_BATCH_SIZE = 4


def save_network(path: Path, *, seed: int = 0, text: int = 384) -> Path:
    """Write a checkpoint of a tiny network with an image query and a text query."""
    torch.manual_seed(seed)
    encoder = Encoder(24, depth=2, heads=2, patch_widths=(8, 16, 16))
    decoder = Decoder(24, depth=1, heads=2, group_size=8)
    model = ReCon(
        PatchGrouper(8, 8), encoder, decoder, Projections(24, {"image": 10, "text": text})
    )
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({METADATA_KEY: build_metadata(model), "state_dict": state}, path)
    return path


def write_shapes(root: Path, count: int = 10) -> list[str]:
    """Write clouds of different sizes in two classes; return their names, sorted."""
    rng = np.random.default_rng(0)
    names = []
    for row in range(count):
        path = root / ("chair" if row % 2 else "lamp") / f"{row}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.normal(size=(40 + 7 * row, 3)).astype(np.float32))
        names.append(path.relative_to(root).as_posix())
    return sorted(names)


def run_embed(*overrides: str) -> int:
    """Embed on the CPU without workers; return the number of shapes in the table."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose(
            "embed", [*overrides, "num_workers=0", f"batch_size={EMBED_BATCH_SIZE}", "device=cpu"]
        )
    return embed(cfg)
