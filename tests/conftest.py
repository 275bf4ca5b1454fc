"""Load reference data of the official release, seed tests, and write toy data sets."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

# Tests run in parallel, one core each; more threads would compete for the cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
torch.manual_seed(0)  # for test modules that draw random numbers on import

RELEASED = Path(__file__).parent / "data" / "released"


def released_path(name: str) -> Path:
    return RELEASED / name


def released_json(name: str) -> Any:
    return json.loads(released_path(name).read_text())


def released_arrays(name: str) -> Callable[[str], Tensor]:
    archive = np.load(released_path(name))
    return lambda key: torch.from_numpy(archive[key])


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    """Compare relative to the larger of 1 and the expected size."""
    error = (actual.double() - expected.double()).abs() / expected.double().abs().clamp_min(1)
    assert error.max() <= tolerance, f"off by {error.max():.2e}, allowed {tolerance:.0e}"


@pytest.fixture(autouse=True)
def _seed_torch() -> None:
    torch.manual_seed(0)


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> None:
    """Seed fixtures of wider scope too, because they run before the seed of a test."""
    if fixturedef.scope != "function":
        torch.manual_seed(0)


@pytest.fixture
def shapenet_root(tmp_path: Path) -> Path:
    """Write a ShapeNet-55 folder with eight shapes of two categories."""
    root = tmp_path / "ShapeNet55-34"
    for folder in ("ShapeNet-55", "shapenet_pc", "shapenet_img"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{synset}-model{i}" for i in range(4) for synset in ("02691156", "04379243")]
    for name in names:
        np.save(root / "shapenet_pc" / f"{name}.npy", rng.normal(size=(8192, 3)))
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "shapenet_img" / f"{name}.png")
    lists = {"train": names[:6], "test": names[6:]}
    for split, members in lists.items():
        lines = "".join(f"{name}.npy\n" for name in members)
        (root / "ShapeNet-55" / f"{split}.txt").write_text(lines)
    table = {
        "catalogue": {"0": 2691156, "1": 4379243},
        "describe": {"0": "airplane", "1": "table"},
    }
    (root / "shapenet55.json").write_text(json.dumps(table))
    return root


class InterruptStep(Callback):
    """Raise SIGINT or another signal in the middle of a step, after its forward pass.

    With `parent`, send it to the process that spawned the first training process.
    """

    def __init__(self, step: int, number: int = signal.SIGINT, *, parent: bool = False) -> None:
        self.step, self.number, self.parent = step, number, parent

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: Tensor) -> None:
        if trainer.global_step != self.step:
            return
        if not self.parent:
            signal.raise_signal(self.number)
        elif trainer.is_global_zero:
            os.kill(os.getppid(), self.number)
