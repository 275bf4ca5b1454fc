"""Non-finite losses and gradients stop a training or are skipped, and samples are named."""

from pathlib import Path

import pytest
import torch
from torch import nn

from recon.callbacks.graceful_stop import BufferSnapshot
from recon.callbacks.nonfinite_guard import FiniteGuard, find_offending_samples
from recon.tasks.pretrain import Pretraining
from runs import run


def fault_options(what: str, step: int, until: int | None = None) -> list[str]:
    options = [
        "+callbacks.aa_fault._target_=fault_callbacks.InjectFault",
        f"+callbacks.aa_fault.fault={what}",
    ]
    last = [] if until is None else [f"+callbacks.aa_fault.until={until}"]
    return [*options, *last, f"+callbacks.aa_fault.step={step}"]


def load_last_state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "step", "reason"),
    [
        ("overflow", 7, "the loss is (nan|inf)"),
        pytest.param("gradient", 9, "gradient", marks=pytest.mark.slow),
    ],  # 9 ends an epoch
)
def test_stop_names_the_samples_and_the_run_can_be_resumed(
    what: str, step: int, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = run(tmp_path / "uninterrupted")
    with pytest.raises(ValueError, match=rf"step {step}: .*{reason}.*; samples: \S+.*guard=skip"):
        run(tmp_path / "stopped", *fault_options(what, step), "callbacks/guard=dump")
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert f"stopped after {step} steps; resume with ckpt_path={last}" in capsys.readouterr().out
    # The step changed nothing, not even BatchNorm statistics, so the resumed run repeats it.
    resumed = run(tmp_path / "resumed", f"ckpt_path={last}")
    assert resumed == {number: loss for number, loss in losses.items() if number >= step}
    ends = load_last_state(tmp_path / "uninterrupted"), load_last_state(tmp_path / "resumed")
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    (dump,) = (tmp_path / "stopped" / "nonfinite").iterdir()
    content = torch.load(dump, weights_only=True)
    if what == "overflow":
        assert content["samples"] == [content["batches"][0]["id"][1]]
    assert len(content["batches"][0]["points"]) == 4


def test_a_skipped_step_changes_neither_weights_nor_buffers(tmp_path: Path) -> None:
    one_step = ["trainer.limit_train_batches=1", "trainer.max_epochs=1", "callbacks/guard=skip"]
    with pytest.warns(UserWarning, match="skipped \\(1\\): step 0: the loss is (nan|inf)"):
        run(tmp_path, *fault_options("overflow", 0), *one_step)
    with pytest.warns(UserWarning, match="skipped"):
        run(tmp_path / "same", *fault_options("gradient", 0), *one_step)
    # Both faults leave the network as it was before its first step.
    first, second = load_last_state(tmp_path), load_last_state(tmp_path / "same")
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert all(value.isfinite().all() for value in first.values())
    counters = [value for name, value in first.items() if name.endswith("num_batches_tracked")]
    assert counters
    assert not any(map(int, counters))


def test_training_continues_after_skipped_steps_up_to_a_limit(tmp_path: Path) -> None:
    losses = run(tmp_path / "on", *fault_options("overflow", 3, 4), "callbacks/guard=skip")
    assert len(losses) == 15
    assert [step for step, loss in losses.items() if loss in ("nan", "inf")] == [3, 4]
    assert all(value.isfinite().all() for value in load_last_state(tmp_path / "on").values())
    with pytest.raises(ValueError, match="more than 2 such steps in a row"):
        run(
            tmp_path,
            *fault_options("overflow", 3, 9),
            "callbacks/guard=skip",
            "callbacks.guard.max_consecutive=2",
        )


def test_invalid_options_raise_value_error() -> None:
    with pytest.raises(ValueError, match="action must be stop or skip, got 'ignore'"):
        FiniteGuard("ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_consecutive must be 0 or more, got -1"):
        FiniteGuard("skip", max_consecutive=-1)


class SquareRootTask(Pretraining):
    """Loss that is always finite, with a non-finite gradient for a zero sample; has a BatchNorm."""

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


def test_offending_samples_are_found_without_side_effects() -> None:
    module, points = SquareRootTask(), torch.rand(4, 5, 3)
    points[2] = 0
    batch = {"id": ["a", "b", "c", "d"], "points": points, "seed": torch.arange(4)}
    rng_state, running_mean = torch.get_rng_state(), module.norm.running_mean.clone()
    assert find_offending_samples(module, batch) == ["c"]
    batch["points"] = points.index_fill(0, torch.tensor([2]), 1.0)
    assert find_offending_samples(module, batch) == ["a", "b", "c", "d"]  # no sample alone
    batch["points"][1, 0, 0] = torch.inf
    assert find_offending_samples(module, batch) == ["b"]
    assert torch.equal(torch.get_rng_state(), rng_state)
    assert torch.equal(module.norm.running_mean, running_mean)
    assert module.training
    assert "log" not in vars(module)


def test_buffers_are_restored_unless_discarded() -> None:
    module = SquareRootTask()
    snapshot = BufferSnapshot(module)
    snapshot.capture()
    module.norm(torch.rand(4, 3))
    snapshot.restore()
    assert not int(module.norm.num_batches_tracked)
    module.norm(torch.rand(4, 3))
    snapshot.discard()
    snapshot.restore()
    assert int(module.norm.num_batches_tracked) == 1
