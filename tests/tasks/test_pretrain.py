from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.testing import assert_close
from torch.utils.data import DataLoader

from recon.checkpoints.reader import METADATA_KEY
from recon.data.batch import Batch
from recon.layers.grouping import PatchGrouper
from recon.losses.contrastive import CategoryContrast, NTXentLoss
from recon.losses.distillation import SigLIP, SmoothL1
from recon.losses.reconstruction import ChamferL2
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import ContrastiveNetwork, Projections, ReCon
from recon.ops.masking import random_mask
from recon.tasks.pretrain import (
    ContrastiveStudent,
    EnsembleDistillation,
    GenerativeStudent,
    ReConStudent,
)
from recon.tasks.self_contrast import CategorySelfContrast, ViewSelfContrast
from recon.teachers.base import Teacher


class BatchEntryTeacher(Teacher):
    """Return an entry of the batch as the teacher's features."""

    def __init__(self, key: str, dim: int) -> None:
        super().__init__(dim)
        self.key, self.keys = key, (key,)

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        return batch[self.key]


BATCH: Batch = {  # type: ignore[typeddict-item]
    "points": torch.randn(4, 60, 3),
    "second_view": torch.randn(4, 60, 3),
    "image": torch.randn(4, 5),
    "text": torch.randn(4, 7),
    "category": torch.tensor([0, 1, 0, 2]),
}
RECIPE = {
    "optimizer": partial(torch.optim.AdamW, lr=1e-2),
    "mask": partial(random_mask, ratio=0.5),
}


def network(**changes: Any) -> ReCon:
    widths = {"image": 5, "text": 7, "cls": 6}
    return ReCon(
        PatchGrouper(8, 6),
        Encoder(24, depth=2, heads=3, patch_widths=(8, 16, 16), **changes),
        Decoder(24, depth=1, heads=3, group_size=6),
        Projections(24, widths),
    )


def ensemble(**changes: Any) -> EnsembleDistillation:
    return EnsembleDistillation(
        {"image": BatchEntryTeacher("image", 5), "text": BatchEntryTeacher("text", 7)},
        SmoothL1(),
        **changes,
    )


def test_recon_loss_is_the_sum_of_both_students_losses() -> None:
    model = network().eval()
    task = ReConStudent(model, reconstruction=ChamferL2(), ensemble=ensemble(), **RECIPE)
    mask = random_mask(model.grouper(BATCH["points"]).centers, 0.5)
    task.mask = lambda _: mask
    out = model(BATCH["points"], mask)
    expected = {
        "reconstruction": ChamferL2()(out.predicted, out.target),
        "image": SmoothL1()(out.projected_queries["image"], BATCH["image"]),
        "text": SmoothL1()(out.projected_queries["text"], BATCH["text"]),
    }
    losses = task.compute_losses(task(BATCH["points"]), BATCH)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert_close(loss, expected[name])
    assert_close(task.total_loss(losses), sum(expected.values()))
    task.loss_weights = {"text": 0.25}
    assert_close(task.total_loss(losses), sum(expected.values()) - 0.75 * expected["text"])


def test_weight_of_an_unknown_loss_raises_value_error() -> None:
    task = GenerativeStudent(
        network(), reconstruction=ChamferL2(), loss_weights={"txet": 2.0}, **RECIPE
    )
    with pytest.raises(ValueError, match=r"loss_weights has \['txet'\], but the losses are"):
        task.total_loss({"reconstruction": torch.zeros(())})


def test_students_declare_only_the_batch_entries_they_read() -> None:
    options = {"ensemble": ensemble(), **RECIPE}
    generative = GenerativeStudent(network(), reconstruction=ChamferL2(), **RECIPE)
    assert generative.keys == set()
    assert ContrastiveStudent(network(), **options).keys == {"image", "text"}
    options["ensemble"] = ensemble(self_contrast=ViewSelfContrast(NTXentLoss()))
    assert ContrastiveStudent(network(), **options).keys == {"image", "text", "second_view"}


def test_self_contrast_matches_its_loss_by_category_and_by_view() -> None:
    features, second = torch.randn(4, 6), torch.randn(4, 6)
    loss = CategorySelfContrast(CategoryContrast())(features, BATCH, lambda _: second)
    assert_close(loss, CategoryContrast()(features, BATCH["category"]))
    projected = []
    loss = ViewSelfContrast(NTXentLoss())(features, BATCH, lambda x: projected.append(x) or second)
    assert_close(loss, NTXentLoss()(features, second))
    assert projected[0] is BATCH["second_view"]


def test_modalities_do_not_share_loss_parameters() -> None:
    losses = EnsembleDistillation(
        {"image": BatchEntryTeacher("image", 5), "text": BatchEntryTeacher("text", 7)}, SigLIP()
    ).losses
    assert losses["image"].bias is not losses["text"].bias


def test_a_teacher_that_is_none_is_left_out() -> None:
    image = BatchEntryTeacher("image", 5)
    one = EnsembleDistillation({"image": image, "text": None}, SmoothL1())
    assert set(one.teachers) == set(one.losses) == one.keys == {"image"}


def test_projection_of_wrong_width_raises_value_error() -> None:
    wrong = EnsembleDistillation({"image": BatchEntryTeacher("image", 9)}, SmoothL1())
    with pytest.raises(ValueError, match="teacher has features of width 9, but .* to width 5"):
        ContrastiveStudent(network(), ensemble=wrong, **RECIPE)


@pytest.mark.parametrize("name", ["generative", "contrastive", "recon"])
def test_students_train_without_configuration_files(name: str, tmp_path: Any) -> None:
    model = network()
    task = {
        "generative": lambda: GenerativeStudent(model, reconstruction=ChamferL2(), **RECIPE),
        "contrastive": lambda: ContrastiveStudent(
            ContrastiveNetwork(model.grouper, model.encoder, model.projections),
            ensemble=ensemble(),
            **RECIPE,
        ),
        "recon": lambda: ReConStudent(
            model, reconstruction=ChamferL2(), ensemble=ensemble(), **RECIPE
        ),
    }[name]()

    def loss() -> float:
        torch.manual_seed(0)
        return task.total_loss(task.compute_losses(task(BATCH["points"]), BATCH)).item()

    before = loss()
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=20, accelerator="cpu", enable_checkpointing=False, **options)
    trainer.fit(task, DataLoader([BATCH], batch_size=None))
    assert loss() < before
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert checkpoint[METADATA_KEY]["num_heads"] == 3
    assert all(key.startswith("model.") for key in checkpoint["state_dict"])


def test_accumulated_gradients_equal_large_batch_gradients_with_fixed_batch_norm() -> None:
    state_dicts = []
    halves = [{name: part[rows] for name, part in BATCH.items()} for rows in ([0, 1], [2, 3])]
    for batches, accumulate in (([BATCH], 1), (halves, 2)):
        torch.manual_seed(0)
        task = ReConStudent(
            network(drop_path=0.0), reconstruction=ChamferL2(), ensemble=ensemble(), **RECIPE
        )
        task.optimizer = partial(torch.optim.SGD, lr=0.1)
        task.mask = lambda centers: torch.arange(8).expand(len(centers), -1) < 4
        for part in (task.model.projections, task.model.encoder.embed):
            part.eval().train = lambda mode=True, part=part: part  # fixed BatchNorm statistics
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(
            max_epochs=2, accelerator="cpu", accumulate_grad_batches=accumulate,
            enable_checkpointing=False, **options,
        )  # fmt: skip
        trainer.fit(task, DataLoader(batches, batch_size=None))
        state_dicts.append(task.model.state_dict())
    for name, value in state_dicts[0].items():
        assert_close(state_dicts[1][name], value, rtol=1e-4, atol=1e-6)
