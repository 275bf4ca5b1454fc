"""A new teacher."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor

from recon.data.datasets.furniture import Furniture, FurnitureDataModule
from recon.data.transforms import RandomPointSample
from recon.layers.grouping import PatchGrouper
from recon.losses.distillation import SmoothL1
from recon.losses.reconstruction import ChamferL2
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from recon.ops.masking import random_mask
from recon.tasks.pretrain import EnsembleDistillation, ReConStudent
from recon.teachers.base import Teacher

# A teacher turns a batch into features (B, dim) that a query of the student learns to predict. It
# may be another network ([`LiveTeacher`](../../src/recon/teachers/base.py) holds one that is
# frozen), a table, or a formula. Here a table: how large each embedded model is, which clouds
# scaled to one size do not tell.
#
# ## The teacher
#
# `keys` says what it reads of a batch, so that nothing more is loaded; `require` looks before
# training whether it knows all that it will be asked.


class SizeTeacher(Teacher):
    """Logarithms of width, height and depth in metres, by the model's id."""

    keys = ("id",)
    table: Tensor

    def __init__(self) -> None:
        super().__init__(dim=3)
        data = Furniture(("train", "unlabelled"))
        self.row = {name: row for row, name in enumerate(data.ids)}
        sizes = torch.from_numpy(data.sizes_cm).float() / 100
        self.register_buffer("table", sizes.clamp_min(1e-3).log(), persistent=False)

    def check_coverage(self, names: Mapping[str, Collection[str]]) -> None:
        if lacking := [name for name in names["id"] if name not in self.row]:
            raise ValueError(f"the size of {lacking[0]} is not known: leave it out")

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        return self.table[[self.row[name] for name in batch["id"]]]


teacher = SizeTeacher()
teacher.check_coverage({"id": list(teacher.row)})

# ## A student that learns from it
#
# The encoder gets a query of the teacher's name, and a projection of its width. Others go beside
# it: `{"size": ..., "text": ...}`. The sizes are tiny, so that this page runs in seconds.

torch.manual_seed(0)
encoder = Encoder(48, depth=2, heads=2, queries=("cls", "size"), patch_widths=(16, 32, 32))
decoder = Decoder(48, depth=1, heads=2, group_size=16)
network = ReCon(PatchGrouper(16, 16), encoder, decoder, Projections(48, {"size": teacher.dim}))
student = ReConStudent(
    network,
    reconstruction=ChamferL2(),
    ensemble=EnsembleDistillation({"size": teacher}, SmoothL1()),
    mask=partial(random_mask, ratio=0.3),
    optimizer=partial(torch.optim.AdamW, lr=3e-3),
)


class Losses(lightning.Callback):
    """Keep each step's losses."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.seen.append(float(trainer.callback_metrics["train/size"]))


losses = Losses()
trainer = lightning.Trainer(
    max_steps=30,
    accelerator="cpu",
    callbacks=[losses],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(student, FurnitureDataModule(batch_size=16, transform=RandomPointSample(512)))
print(f"loss of size: {losses.seen[0]:.2f} at first, {losses.seen[-1]:.2f} at last")
assert sum(losses.seen[-5:]) < sum(losses.seen[:5])

# ## By configuration
#
# With the class in `my_module.py` of the working folder,
# `+teacher.size._target_=my_module.SizeTeacher +projection_dims.size=3
# model.encoder.queries=[cls,image,text,size]` adds it to a pretraining command.
