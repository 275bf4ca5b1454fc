"""Losses and gradients that are not finite, in trainings as a user starts them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from recon.callbacks.graceful_stop import BufferSnapshot
from recon.callbacks.nonfinite_guard import FiniteGuard, find_offending_samples
from recon.tasks.pretrain import Pretraining
from runs import run


def fault(what: str, step: int, until: int | None = None) -> list[str]:
    options = [
        "+callbacks.aa_fault._target_=fault_callbacks.InjectFault",
        f"+callbacks.aa_fault.what={what}",
    ]
    last = [] if until is None else [f"+callbacks.aa_fault.until={until}"]
    return [*options, *last, f"+callbacks.aa_fault.step={step}"]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "step", "said"),
    [
        ("overflow", 7, "the loss is (nan|inf)"),
        pytest.param("gradient", 9, "gradient", marks=pytest.mark.slow),
    ],  # 9 ends an epoch
)
def test_a_stop_names_the_samples_and_can_be_gone_on_from(
    what: str, step: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(ValueError, match=rf"step {step}: .*{said}.*; samples: \S+.*guard=skip"):
        run(tmp_path / "cut", *fault(what, step), "callbacks/guard=dump")
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert f"stopped after {step} steps; go on with ckpt_path={last}" in capsys.readouterr().out
    # Nothing of the step was kept, batch statistics neither: the resumed run is the whole one.
    on = run(tmp_path / "on", f"ckpt_path={last}")
    assert on == {number: loss for number, loss in whole.items() if number >= step}
    ends = state(tmp_path / "whole"), state(tmp_path / "on")
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    (dump,) = (tmp_path / "cut" / "not_finite").iterdir()
    held = torch.load(dump, weights_only=True)
    if what == "overflow":
        assert held["samples"] == [held["batches"][0]["id"][1]]
    assert len(held["batches"][0]["points"]) == 4


def test_a_skipped_step_leaves_everything_as_it_was(tmp_path: Path) -> None:
    one = ["trainer.limit_train_batches=1", "trainer.max_epochs=1", "callbacks/guard=skip"]
    with pytest.warns(UserWarning, match="left out \\(1\\): step 0: the loss is (nan|inf)"):
        run(tmp_path, *fault("overflow", 0), *one)
    with pytest.warns(UserWarning, match="left out"):
        run(tmp_path / "same", *fault("gradient", 0), *one)
    # Whatever it was that went wrong: what remains is the network before its first step.
    first, second = state(tmp_path), state(tmp_path / "same")
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert all(value.isfinite().all() for value in first.values())
    norms = [value for name, value in first.items() if name.endswith("num_batches_tracked")]
    assert norms
    assert not any(map(int, norms))


def test_training_goes_on_after_skips_until_there_are_too_many(tmp_path: Path) -> None:
    losses = run(tmp_path / "on", *fault("overflow", 3, 4), "callbacks/guard=skip")
    assert len(losses) == 15
    assert [step for step, loss in losses.items() if loss in ("nan", "inf")] == [3, 4]
    assert all(value.isfinite().all() for value in state(tmp_path / "on").values())
    with pytest.raises(ValueError, match="more than 2 such steps in a row"):
        run(
            tmp_path,
            *fault("overflow", 3, 9),
            "callbacks/guard=skip",
            "callbacks.guard.max_consecutive=2",
        )


def test_options_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="action must be stop or skip, got 'ignore'"):
        FiniteGuard("ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit must be 0 or more, got -1"):
        FiniteGuard("skip", max_consecutive=-1)


class Roots(Pretraining):
    """Its loss is finite, its gradient is not where a sample is zero; its layer has statistics."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        super(Pretraining, self).__init__()
        self.norm, self.scale = nn.BatchNorm1d(3), nn.Parameter(torch.ones(()))

    def compute_losses(self, out: object, batch: object) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        self.log("x", 1.0)
        self.norm(batch["points"].mean(1))
        return (self.scale * batch["points"].square().sum((1, 2))).sqrt().sum()


def test_samples_are_found_one_by_one_and_nothing_is_changed_by_it() -> None:
    module, points = Roots(), torch.rand(4, 5, 3)
    points[2] = 0
    batch = {"id": ["a", "b", "c", "d"], "points": points, "seed": torch.arange(4)}
    random, tracked = torch.get_rng_state(), module.norm.running_mean.clone()
    assert find_offending_samples(module, batch) == ["c"]
    batch["points"] = points.index_fill(0, torch.tensor([2]), 1.0)
    assert find_offending_samples(module, batch) == ["a", "b", "c", "d"]  # it takes them all
    batch["points"][1, 0, 0] = torch.inf
    assert find_offending_samples(module, batch) == ["b"]
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(module.norm.running_mean, tracked)
    assert module.training
    assert "log" not in vars(module)


def test_statistics_come_back_unless_they_are_forgotten() -> None:
    module = Roots()
    kept = BufferSnapshot(module)
    kept.capture()
    module.norm(torch.rand(4, 3))
    kept.restore()
    assert not int(module.norm.num_batches_tracked)
    module.norm(torch.rand(4, 3))
    kept.discard()
    kept.restore()
    assert int(module.norm.num_batches_tracked) == 1
