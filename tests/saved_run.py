"""The folder of a small pretraining run, as `recon.train` leaves it."""

import json
from pathlib import Path

import torch
from lightning import Trainer
from omegaconf import OmegaConf

from recon.checkpoints.provenance import write_environment
from recon.data.datasets.furniture import FurnitureDataModule
from recon.layers.grouping import PatchGrouper
from recon.losses.reconstruction import ChamferL2
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from recon.ops.masking import random_mask
from recon.tasks.pretrain import GenerativeStudent

CONFIG = {
    "name": "pretrain_here",
    "output_dir": "/home/somebody/secret/run",
    "checkpoint": "/home/somebody/secret/first.ckpt",
    "data": {
        "_target_": "recon.data.datasets.shapenet.ShapeNetDataModule",
        "root": "/home/somebody/secret/ShapeNet55-34",
        "split": "train",
        "batch_size": 128,
    },
    "task": {"_target_": "recon.tasks.pretrain.ReConStudent"},
    "teacher": {"text": {"_target_": "recon.teachers.clip.ClipTextTeacher"}, "image": None},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 5.0e-4},
    "trainer": {"max_epochs": 300},
}
RESULTS = {
    "svm": {"pretrained": [0.7, 0.6, 0.8], "calibrated": [0.6, 0.5, 0.7]},
    "zero_shot": 0.25,
}


def write_run(folder: Path) -> Path:
    """Write a checkpoint, config.yaml, results.json and environment.json; return the folder."""
    encoder = Encoder(16, depth=1, heads=2, queries=(), patch_widths=(8, 16, 24))
    decoder = Decoder(16, depth=1, heads=2, group_size=8)
    student = GenerativeStudent(
        ReCon(PatchGrouper(8, 8), encoder, decoder, Projections(16, {})),
        reconstruction=ChamferL2(),
        mask=lambda centers: random_mask(centers, ratio=0.5),
        optimizer=torch.optim.AdamW,
    )
    trainer = Trainer(
        max_steps=2, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(student, FurnitureDataModule(batch_size=2))
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(CONFIG))
    (folder / "results.json").write_text(json.dumps(RESULTS))
    write_environment(folder)
    return folder
