"""Frozen modules are bit-equal after real training, in every task; other modules train."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from recon.layers.grouping import PatchGrouper
from recon.losses.distillation import SmoothL1
from recon.models.classifier import Classifier
from recon.models.encoder import Encoder
from recon.models.heads import linear_head, mlp_head
from recon.models.recon import ContrastiveNetwork, Projections
from recon.models.segmenter import Segmenter
from recon.models.two_tower import Tower
from recon.tasks.classify import Classification
from recon.tasks.pretrain import ContrastiveStudent, EnsembleDistillation
from recon.tasks.scene import SceneSegmentation
from recon.tasks.segment import PartSegmentation
from recon.tasks.sliding_windows import SlidingWindowConfig
from recon.tasks.training_mode import TrainingTask, evaluation_mode
from recon.teachers.base import Teacher

ADAMW = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
WIDTHS = (8, 16, 16)


def build_encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(24, depth=2, heads=2, patch_widths=WIDTHS, drop_path=0.5)


def build_classification(head: Callable[..., nn.Module], encoder: nn.Module) -> Classification:
    model = Classifier(PatchGrouper(8, 8), encoder, 4, head=head)
    return Classification(model, optimizer=ADAMW, freeze_encoder=True)


def build_segmentation(cls: type[TrainingTask], **settings: Any) -> TrainingTask:
    sizes = {"hidden": 16, "widths": (16, 16, 8)}
    objects = 4 if cls is PartSegmentation else None
    model = Segmenter(PatchGrouper(8, 8), build_encoder(), 4, num_objects=objects, **sizes)
    model.encoder.requires_grad_(requires_grad=False)
    return cls(model, optimizer=ADAMW, **settings)


class NormalizingTeacher(Teacher):
    """A teacher with layers of its own, whose statistics would change in training mode."""

    keys = ("label",)

    def __init__(self) -> None:
        super().__init__(5)
        self.network = nn.Sequential(nn.Linear(1, 5), nn.BatchNorm1d(5))

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        return self.network(batch["label"][:, None].float())


def build_pretraining() -> ContrastiveStudent:
    model = ContrastiveNetwork(PatchGrouper(8, 8), build_encoder(), Projections(24, {"text": 5}))
    model.encoder.embed.requires_grad_(requires_grad=False)
    ensemble = EnsembleDistillation({"text": NormalizingTeacher()}, SmoothL1())
    return ContrastiveStudent(model, ensemble=ensemble, optimizer=ADAMW)


TASKS: dict[str, Callable[[], TrainingTask]] = {
    "linear": lambda: build_classification(linear_head, build_encoder()),
    "mlp3": lambda: build_classification(mlp_head, build_encoder()),
    "tower": lambda: build_classification(
        mlp_head, Tower(24, depth=1, heads=2, queries=("cls",), patch_widths=WIDTHS)
    ),
    "parts": lambda: build_segmentation(PartSegmentation),
    "scenes": lambda: build_segmentation(SceneSegmentation, windows=SlidingWindowConfig()),
    "pretraining": build_pretraining,
}


def build_loader() -> DataLoader[Any]:
    samples = [
        {"points": torch.randn(32, 3), "label": row % 4, "seed": row,
         "point_labels": torch.arange(32) % 4, "id": str(row)}
        for row in range(8)
    ]  # fmt: skip
    return DataLoader(samples, batch_size=4)


class ModeRecorder(Callback):
    """Record at each step whether the encoder's modules train."""

    def __init__(self) -> None:
        self.modes: list[set[bool]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.modes.append({module.training for module in pl_module.model.encoder.modules()})


def fit(task: TrainingTask, epochs: int = 1, **settings: Any) -> Trainer:
    """Train as a user does; validations interrupt the epochs of a classifier."""
    validates = isinstance(task, Classification)
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, val_check_interval=1,
        callbacks=[*settings.pop("callbacks", [])],
    )  # fmt: skip
    loaders = (build_loader(), build_loader() if validates else None)
    trainer.fit(task, *loaders, **settings)
    return trainer


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def find_changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize("name", TASKS)
def test_frozen_tensors_are_bit_equal_after_several_real_trainings(
    name: str, tmp_path: Path
) -> None:
    task = TASKS[name]()
    trainable = {k for k, p in task.named_parameters() if p.requires_grad}
    before, recorder = copy_state(task), ModeRecorder()
    trainer = fit(task, callbacks=[recorder])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(task, callbacks=[recorder])
    fit(task, 2, callbacks=[recorder], ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    changed = find_changed(task, before)
    frozen_norms = {k for k in changed - trainable if "encoder." in k or "teachers." in k}
    assert not frozen_norms
    assert changed >= {k for k in trainable if k.endswith("weight") and "head" in k}
    assert all(not k.startswith("ensemble.teachers.") for k in changed | trainable)
    assert len(recorder.modes) == 2 * 3
    if name in ("parts", "scenes", "linear", "mlp3", "tower"):
        assert recorder.modes == [{False}] * len(recorder.modes)
    else:  # only the patch embedding is frozen
        assert not any(module.training for module in task.model.encoder.embed.modules())
        assert all(module.training for module in task.model.encoder.blocks.modules())


def test_a_thawed_module_returns_to_training_mode() -> None:
    task = build_segmentation(PartSegmentation)
    fit(task, 1)
    assert not task.model.encoder.training
    task.model.encoder.blocks[1].requires_grad_(requires_grad=True)
    before = copy_state(task)
    fit(task, 1)
    assert task.model.encoder.blocks[1].drop_path.training
    assert not task.model.encoder.blocks[0].drop_path.training
    changed = {k for k in find_changed(task, before) if "encoder." in k}
    assert changed
    assert all(k.startswith("model.encoder.blocks.1.") for k in changed)


def test_a_frozen_norm_in_a_trained_patch_embedding_keeps_its_statistics() -> None:
    task = build_pretraining()
    task.model.encoder.embed.requires_grad_(requires_grad=True)
    task.model.encoder.embed.point_norm.requires_grad_(requires_grad=False)
    task.model.encoder.stop_gradient = False
    before = copy_state(task)
    fit(task)
    changed = {k.removeprefix("model.encoder.embed.") for k in find_changed(task, before)}
    assert not any(k.startswith("point_norm.") for k in changed)
    assert {"point_in.weight", "joint_norm.running_mean"} <= changed


def test_a_loaded_network_in_evaluation_mode_is_trained_in_training_mode() -> None:
    model = Classifier(PatchGrouper(8, 8), build_encoder(), 4).eval()
    task = Classification(model, optimizer=ADAMW)
    before = copy_state(task)
    fit(task)
    assert "model.encoder.embed.point_norm.running_mean" in find_changed(task, before)


def test_evaluation_mode_restores_the_mode_of_each_module() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    network[1][0].eval()
    with evaluation_mode(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, True, True, False, True]
