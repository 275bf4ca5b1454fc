"""Measure the time of each stage of a pretraining step, its scaling and its peak memory."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from comparisons import TEACHER_WIDTHS, build_base_model, make_pretraining_step
from data_loading import open_datamodule, prepare_tree, write_shapenet_tree
from timing import DEVICE, Step, autocast_bf16, count_gflops, time_step, with_backward
from torch import Tensor

from recon.losses.distillation import SmoothL1
from recon.losses.reconstruction import ChamferL2
from recon.ops.masking import random_mask
from recon.tasks.optim import parameter_groups

ROUNDS = 3


def time_best(step: Step, rounds: int = ROUNDS) -> float:
    """Return the shortest time of a step after one warm-up run."""
    step()
    return min(time_step(step) for _ in range(rounds))


def time_stages(batch: int, *, bf16: bool) -> dict[str, float]:
    """Return the seconds of each stage with its gradient; stages run separately."""
    model = build_base_model()
    clouds = torch.randn(batch, 1024, 3, device=DEVICE)
    patches = model.grouper(clouds)
    mask = random_mask(patches.centers, 0.6)
    out = model.forward_patches(patches, mask)
    target, predicted = out.target, out.predicted.detach().requires_grad_()
    encoder, visible = model.encoder, (~mask).nonzero()[:, 1].view(batch, -1)
    tokens = encoder.embed(patches.points, visible).detach().requires_grad_()
    encoding = model.encoder(patches, visible)
    encoding = encoding._replace(tokens=encoding.tokens.detach().requires_grad_())
    masked = patches.centers[mask].view(batch, -1, 3)
    contexts = [tokens.detach()] * len(encoder.blocks)
    teacher = {
        name: torch.randn(batch, width, device=DEVICE) for name, width in TEACHER_WIDTHS.items()
    }
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-4, fused=True)

    def blocks() -> Tensor:
        x = tokens
        for block in encoder.blocks:
            x = block(x).tokens
        return encoder.norm(x)

    def queries() -> Tensor:
        assert encoder.queries is not None
        outputs = encoder.norm(encoder.queries(contexts)).unbind(1)
        projected = model.projections(dict(zip(encoder.modalities, outputs, strict=True)))
        losses = [SmoothL1()(projected[name].float(), value) for name, value in teacher.items()]
        return torch.stack(losses).sum()

    stages = {
        "sampling and neighbors": lambda: model.grouper(clouds),
        "patch embedding": with_backward(lambda: encoder.embed(patches.points, visible)),
        "blocks": with_backward(blocks),
        "queries and their losses": with_backward(queries),
        "decoder": with_backward(lambda: model.decoder(encoding, masked)),
        "Chamfer": with_backward(lambda: ChamferL2()(predicted, target)),
        "optimizer": optimizer.step,
    }
    with autocast_bf16(bf16):
        return {name: time_best(step) for name, step in stages.items()}


def time_scaling(*, bf16: bool) -> Iterator[dict[str, Any]]:
    """Time a step while one size varies from the default of 16 clouds, 1,024 points, 64 patches."""
    default = {"batch": 16, "points": 1024, "groups": 64}
    others = [("batch", 8), ("batch", 32), ("points", 4096), ("points", 8192)]
    for name, size in [("batch", 16), *others, ("groups", 32), ("groups", 128)]:
        sizes = default | {name: size}
        model = build_base_model(sizes["groups"])
        step = make_pretraining_step(
            model, sizes["batch"], bf16=bf16, fast=True, points=sizes["points"]
        )
        yield sizes | {"seconds": time_best(step, 2), "gflop": count_gflops(step)}


def measure_peak_memory(batch: int, **settings: Any) -> float:
    """Return the peak memory in GB of pretraining steps, including weights and torch itself."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step = make_pretraining_step(build_base_model(**settings), batch, bf16=False, fast=True)
        step(), step()
        return torch.cuda.max_memory_allocated() / 2**30
    command = [sys.executable, __file__, json.dumps({"batch": batch, **settings})]
    completed = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(completed.stdout)


def read_peak_memory() -> float:
    """Return the peak memory in GB of this process; `ru_maxrss` would include its parent."""
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 2**10  # macOS counts bytes, others KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return float(lines["VmHWM"].split()[0]) / 2**20


def time_data_loading(step_seconds: float) -> dict[str, float]:
    """Return the seconds of reading a batch of 32 without workers, and of a step on it."""
    with TemporaryDirectory() as folder:
        root, prepared = Path(folder) / "files", Path(folder) / "prepared"
        write_shapenet_tree(root, 1500, 8192)
        prepare_tree(root, prepared)
        seconds = {"step": step_seconds}
        for name, path in (("original files", root), ("prepared", prepared)):
            batches = iter(open_datamodule(path, 0).train_dataloader())
            next(batches)
            seconds[name] = time_best(partial(next, batches), 10)
    return seconds


if __name__ == "__main__":
    torch.set_num_threads(1)
    settings = json.loads(sys.argv[1])
    step = make_pretraining_step(
        build_base_model(**{k: v for k, v in settings.items() if k != "batch"}),
        settings["batch"],
        bf16=False,
        fast=True,
    )
    step(), step()
    print(read_peak_memory())
