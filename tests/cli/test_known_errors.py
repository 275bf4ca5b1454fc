"""Errors of other libraries name our option."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, Timer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from recon.cli.errors import format_error, one_line_errors
from recon.cli.known_errors import explain_known_error
from recon.ops.neighbors import knn
from recon.ops.sampling import farthest_point_sample

QUIET: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
WEIGHTS = [nn.Parameter(torch.zeros(1))]
CLOUDS = torch.rand(1, 8, 3)


def build_trainer(**options: Any) -> Callable[[], object]:
    return lambda: Trainer(**QUIET | options)


@pytest.mark.parametrize(
    ("raise_error", "told"),
    [
        (build_trainer(precision="fp16"), "trainer.precision=fp16: choose 32-true"),
        (build_trainer(accelerator="gpus"), "trainer.accelerator=gpus: choose auto, cpu"),
        (build_trainer(devices=0), "trainer.devices=0: must be a whole number"),
        (build_trainer(devices="abc"), "trainer.devices: must be a whole number"),
        (build_trainer(strategy="dpp"), "trainer.strategy=dpp: unknown"),
        (build_trainer(strategy="fsdp"), "trainer.strategy=fsdp: needs a GPU"),
        (build_trainer(gradient_clip_val="abc"), "trainer.gradient_clip_val=abc: must be"),
        (build_trainer(gradient_clip_algorithm="x"), "trainer.gradient_clip_algorithm=x: choose"),
        (build_trainer(limit_train_batches=1.5), "trainer.limit_train_batches=1.5: must be"),
        (build_trainer(profiler="x"), "trainer.profiler: choose"),
        (build_trainer(max_epoch=1), "trainer.max_epoch: .*: did you mean max_epochs?"),
        (build_trainer(zzz=1), "trainer.zzz: Lightning's Trainer has no such option: remove it"),
        (lambda: Timer(duration="abc"), "trainer.max_time=abc: must have the form"),
        (lambda: ModelCheckpoint(monitor="a", mode="best"), "callbacks.checkpoint.mode=best"),
        (lambda: ModelCheckpoint(save_top_k=-3), "callbacks.checkpoint.save_top_k=-3"),
        (lambda: LearningRateMonitor("x"), "callbacks.lr_monitor.logging_interval: choose"),
        (lambda: torch.optim.AdamW(WEIGHTS, lr=-1), "optimizer.lr=-1: must be 0 or more"),
        (lambda: torch.optim.AdamW(WEIGHTS, betas=(1.5, 0.9)), "optimizer.betas: 1.5 is not"),
        (lambda: torch.optim.SGD(WEIGHTS, momentun=1), "optimizer.momentun: .*mean momentum?"),
        (lambda: nn.BatchNorm1d(3)(torch.rand(1, 3)), "data.batch_size: BatchNorm needs"),
        (lambda: farthest_point_sample(CLOUDS, 9), "model.groups=9: the clouds have only 8 points"),
        (lambda: knn(CLOUDS, CLOUDS, 9), "model.group_size=9: the clouds have only 8 points"),
        (lambda: torch.zeros(1).sum().backward(), "nothing is trained, because all weights"),
        (lambda: torch.rand(2, 3) @ torch.rand(4, 5), "two layers do not fit together"),
        (lambda: torch.rand(2) + torch.rand(3), "widths 2 and 3 do not fit together"),
        (lambda: instantiate({"_target_": "torch.optim.Foo"}), "torch.optim.Foo: cannot be"),
    ],
)  # fmt: skip
def test_messages_of_libraries_name_the_option(
    raise_error: Callable[[], object], told: str
) -> None:
    with pytest.raises(SystemExit, match=rf"error: {told}") as caught, one_line_errors():
        raise_error()
    message, hint = str(caught.value).split("\n")
    assert len(message) < 400
    assert hint == "(set HYDRA_FULL_ERROR=1 to see the traceback)"


def test_a_metric_that_is_not_logged_is_answered_with_the_logged_ones() -> None:
    error = MisconfigurationException(
        "`ModelCheckpoint(monitor='val/acc')` could not find the monitored key in the returned "
        "metrics: ['train/loss', 'val/accuracy']. HINT: Did you call `log('val/acc', value)`?"
    )
    told = "callbacks.checkpoint.monitor=val/acc: is not logged: choose one of ['train/loss', "
    assert format_error(error).startswith(told)


def test_other_errors_keep_their_message_and_their_traceback() -> None:
    assert explain_known_error(KeyError("x")) is None
    with pytest.raises(KeyError), one_line_errors():
        raise KeyError("x")
    with pytest.raises(SystemExit, match="error: something else"), one_line_errors():
        raise MisconfigurationException("something else")
