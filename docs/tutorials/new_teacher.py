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

# A teacher maps a batch to features (B, dim) that a query of the student learns to predict. It can
# be another network ([`LiveTeacher`](../../src/recon/teachers/base.py) runs a frozen one), a table,
# or a formula. Here it is a table of the sizes of the bundled models. Clouds do not contain this
# information, because they are scaled to one size.
#
# ## The teacher
#
# `keys` are the batch entries it reads; no others are loaded. `check_coverage` checks before
# training that the teacher has features of all samples.


class SizeTeacher(Teacher):
    """Logarithms of width, height and depth in meters, looked up by id."""

    keys = ("id",)
    table: Tensor

    def __init__(self) -> None:
        super().__init__(dim=3)
        data = Furniture(("train", "unlabelled"))
        self.row = {name: row for row, name in enumerate(data.ids)}
        sizes = torch.from_numpy(data.sizes_cm).float() / 100
        self.register_buffer("table", sizes.clamp_min(1e-3).log(), persistent=False)

    def check_coverage(self, names: Mapping[str, Collection[str]]) -> None:
        if missing := [name for name in names["id"] if name not in self.row]:
            raise ValueError(f"the size of {missing[0]} is unknown: leave it out of the data")

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        return self.table[[self.row[name] for name in batch["id"]]]


teacher = SizeTeacher()
teacher.check_coverage({"id": list(teacher.row)})

# ## A student that learns from it
#
# The encoder needs a query with the name of the teacher, and a projection of its width. More
# teachers can be added: `{"size": ..., "text": ...}`. The network is tiny, so that this page runs
# in seconds.

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


class LossHistory(lightning.Callback):
    """Record the loss of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/size"]))


history = LossHistory()
trainer = lightning.Trainer(
    max_steps=30,
    accelerator="cpu",
    callbacks=[history],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(student, FurnitureDataModule(batch_size=16, transform=RandomPointSample(512)))
print(f"size loss: {history.losses[0]:.2f} at the start, {history.losses[-1]:.2f} at the end")
assert sum(history.losses[-5:]) < sum(history.losses[:5])

# ## By configuration
#
# If the class is in `my_module.py` in the working directory,
# `+teacher.size._target_=my_module.SizeTeacher +projection_dims.size=3
# model.encoder.queries=[cls,image,text,size]` adds it to a pretraining command.
