"""A stopped run, resumed under the same or other options, equals the run that it should equal."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningModule, Trainer
from timm.scheduler import CosineLRScheduler

from recon.cli.config_dir import conf_dir
from recon.train import train
from runs import TINY

EPOCH, EPOCHS = 8, 3
"""Batches of an epoch, and number of epochs."""
OPTIONS = (
    *TINY,
    *("student=generative", "trainer.limit_train_batches=null", "data.fraction=0.1"),
    *("data.batch_size=8", f"trainer.max_epochs={EPOCHS}", "scheduler.warmup_t=1"),
    *("callbacks=within_epochs", "callbacks.within.every_n_train_steps=1"),
    *("+callbacks.within.save_top_k=-1", 'callbacks.within.filename="{step}"'),
)
Steps = list[tuple[tuple[str, ...], float, float]]
"""Ids, rate and loss of each batch."""


def _set_rate(trainer: Trainer) -> None:
    optimizer = trainer.optimizers[0]
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 5e-4
    scheduler = CosineLRScheduler(
        optimizer, EPOCHS, 1e-6, warmup_t=1, warmup_lr_init=1e-4, cycle_limit=1
    )
    trainer.lr_scheduler_configs[0].scheduler = scheduler
    if trainer.current_epoch:
        scheduler.step(epoch=trainer.current_epoch - 1)


def _set_decay(trainer: Trainer) -> None:
    trainer.optimizers[0].param_groups[1]["weight_decay"] = 0.5


def _set_betas(trainer: Trainer) -> None:
    for group in trainer.optimizers[0].param_groups:
        group["betas"] = (0.5, 0.9)


def _set_clip(trainer: Trainer) -> None:
    trainer.gradient_clip_val = 0.01


def _set_loss_weight(trainer: Trainer) -> None:
    trainer.lightning_module.loss_weights = {"reconstruction": 3.0}


def _set_nothing(trainer: Trainer) -> None:
    pass


CHANGES: dict[str, Callable[[Trainer], None]] = {
    "optimizer.lr=5e-4": _set_rate,
    "optimizer.weight_decay=0.5": _set_decay,
    "+optimizer.betas=[0.5,0.9]": _set_betas,
    "trainer.gradient_clip_val=0.01": _set_clip,
    "+loss_weights.reconstruction=3.0": _set_loss_weight,
    "trainer.log_every_n_steps=3": _set_nothing,
    "trainer.max_time=00:01:00:00": _set_nothing,
}
"""An option of the resumed run, and the same change within an uninterrupted one."""


class Record(Callback):
    """Record the batches, change an option before step `change_at`, and stop after `stop_after`."""

    def __init__(
        self,
        change: Callable[[Trainer], None] = _set_nothing,
        change_at: int | None = None,
        stop_after: int | None = None,
        error_at: int | None = None,
    ) -> None:
        self.change, self.change_at = change, change_at
        self.stop_after, self.error_at = stop_after, error_at
        self.steps: Steps = []

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, index: int
    ) -> None:
        if trainer.global_step == self.change_at:
            self.change(trainer)
        if trainer.global_step == self.error_at:
            raise OSError("the disk was removed")

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        rate = trainer.optimizers[0].param_groups[1]["lr"]
        self.steps.append((tuple(batch["id"]), rate, float(outputs["loss"])))
        trainer.should_stop |= trainer.global_step == self.stop_after


def record(monkeypatch: pytest.MonkeyPatch, recorder: Record, *options: str) -> Steps:
    """Train with a recorder among the callbacks; return the steps that ended."""
    original = Trainer.__init__

    def with_recorder(self: Trainer, **settings: Any) -> None:
        original(self, **{**settings, "callbacks": [*settings["callbacks"], recorder]})

    with monkeypatch.context() as patch, initialize_config_dir(conf_dir(), version_base="1.3"):
        patch.setattr(Trainer, "__init__", with_recorder)
        train(compose("train", [*OPTIONS, *options]))
    return recorder.steps


def stop(
    monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str, step: int, *options: str
) -> tuple[Steps, Path]:
    """Train until a run stops after `step` steps; return its steps and checkpoint."""
    options = (*options, f"output_dir={folder}")
    last = folder / "checkpoints" / "last.ckpt"
    if kind == "killed":
        steps = record(monkeypatch, Record(), *options)
        return steps[:step], folder / "checkpoints" / f"{step}.ckpt"
    if kind == "error":
        recorder = Record(error_at=step)
        with pytest.raises(OSError, match="disk"):
            record(monkeypatch, recorder, *options)
        return recorder.steps, last
    if kind == "should_stop":
        return record(monkeypatch, Record(stop_after=step), *options), last
    limits = {
        "max_steps": [f"trainer.max_steps={step}"],
        "limit_train_batches": [f"trainer.limit_train_batches={step}", "trainer.max_epochs=1"],
    }
    return record(monkeypatch, Record(), *options, *limits[kind]), last


def _draw_triples() -> list[tuple[str, int, str]]:
    generator = random.Random(0)
    kinds = ("max_steps", "should_stop", "killed", "error", "limit_train_batches") * 2
    return [
        (kind, generator.randrange(1, EPOCH if "limit" in kind else 18), change)
        for kind, change in zip(kinds, generator.choices([*CHANGES], k=10), strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("kind", "step", "option"), _draw_triples())
def test_a_resumed_run_equals_the_run_whose_option_changes_at_that_step(
    kind: str,
    step: int,
    option: str,
    workers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = f"data.num_workers={workers}"
    whole = record(
        monkeypatch, Record(CHANGES[option], step), f"output_dir={tmp_path / 'whole'}", more
    )
    assert len(whole) == EPOCH * EPOCHS
    first, checkpoint = stop(monkeypatch, tmp_path / "first", kind, step, more)
    assert first == whole[:step]
    options = (option, more, f"ckpt_path={checkpoint}", f"output_dir={tmp_path / 'rest'}")
    assert record(monkeypatch, Record(), *options) == whole[step:]
    paths = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("whole", "rest")]
    expected, actual = (torch.load(path, weights_only=True) for path in paths)
    for name, value in expected["state_dict"].items():
        assert torch.equal(value, actual["state_dict"][name]), name


BATCHES = [
    (8, 1, "data.batch_size=4", 1),
    (8, 4, "data.batch_size=16", 1),
    (8, 2, "data.batch_size=16", 1),
    (8, 3, "data.batch_size=7", 1),
    (8, 4, "trainer.accumulate_grad_batches=1", 2),
    (8, 3, "trainer.accumulate_grad_batches=2", 1),
    (4, 3, "data.batch_size=8", 4),
]
"""Batch size, steps before the stop, the option that changes, batches of an optimizer step."""


@pytest.mark.slow
@pytest.mark.parametrize(("size", "step", "option", "accumulate"), BATCHES)
def test_the_samples_left_in_an_epoch_are_used_once_in_their_order_with_other_batches(
    size: int,
    step: int,
    option: str,
    accumulate: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = (f"data.batch_size={size}", f"trainer.accumulate_grad_batches={accumulate}")
    limits = (*same, "trainer.max_epochs=2")
    whole = record(monkeypatch, Record(), *limits, f"output_dir={tmp_path / 'whole'}")
    first, checkpoint = stop(monkeypatch, tmp_path / "first", "max_steps", step, *limits)
    assert first == whole[: step * accumulate]
    options = (*limits, option, f"ckpt_path={checkpoint}", f"output_dir={tmp_path / 'rest'}")
    rest = record(monkeypatch, Record(), *options)
    whole_ids, ids = ([x for batch, *_ in steps for x in batch] for steps in (whole, first + rest))
    left = len(whole_ids) // 2
    assert ids[:left] == whole_ids[:left]
    # Later epochs may have more or fewer samples: `drop_last` omits those of an incomplete batch.
    assert all(old == new for old, new in zip(whole_ids[left:], ids[left:], strict=False))
    assert abs(len(whole_ids) - len(ids)) < 16


@pytest.mark.slow
def test_a_stop_between_accumulated_batches_repeats_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = "trainer.accumulate_grad_batches=4"
    whole = record(monkeypatch, Record(), accumulate, f"output_dir={tmp_path / 'whole'}")

    class StopBetween(Record):
        def on_train_batch_end(self, trainer: Trainer, *inputs: Any) -> None:
            super().on_train_batch_end(trainer, *inputs)
            trainer.should_stop |= len(self.steps) == 6

    first = tmp_path / "first"
    steps = record(monkeypatch, StopBetween(), accumulate, f"output_dir={first}")
    assert steps == whole[:6]
    options = (accumulate, f"ckpt_path={first}/checkpoints/last.ckpt")
    rest = record(monkeypatch, Record(), *options, f"output_dir={tmp_path / 'rest'}")
    assert rest == whole[4:]
    paths = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("whole", "rest")]
    expected, actual = (torch.load(path, weights_only=True) for path in paths)
    for name, value in expected["state_dict"].items():  # with BatchNorm statistics
        assert torch.equal(value, actual["state_dict"][name]), name


@pytest.mark.slow
def test_the_validation_that_follows_the_checkpoint_of_a_last_step_is_run_on_resuming(
    tmp_path: Path,
) -> None:
    options = [
        *("experiment=finetune_furniture", "debug=tiny", "eval.votes=0"),
        *("trainer.limit_train_batches=3", "trainer.max_epochs=3"),
        *("data.fraction=0.3", *OPTIONS[-4:]),
    ]
    accuracies = {}
    for name, more in (
        ("whole", []),
        ("rest", [f"ckpt_path={tmp_path}/whole/checkpoints/6.ckpt"]),
    ):
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            train(compose("train", [*options, *more, f"output_dir={tmp_path / name}"]))
        with (tmp_path / name / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["val/accuracy"]]
        accuracies[name] = [(row["epoch"], row["step"], row["val/accuracy"]) for row in rows]
    assert len(accuracies["whole"]) == 3
    assert accuracies["rest"] == accuracies["whole"][1:]


@pytest.mark.slow
def test_a_run_that_ends_before_its_first_validation_tests_its_last_weights_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["experiment=finetune_furniture", "debug=tiny", "eval.votes=0"]
    limits = ["trainer.limit_train_batches=3", "trainer.max_steps=2", f"output_dir={tmp_path}"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*options, *limits]))
    assert "before its first validation: testing the last weights" in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text())["protocol"]["selection"] == "last"
