"""Our paths against their plain definitions: interleaved, in one process, on one thread.

python scripts/bench/ratios.py                  # everything, on the base model; minutes
python scripts/bench/ratios.py only=fps,self    # some rows

CPU seconds (of a CUDA device: seconds), medians over rounds. Numbers of both paths are compared
before they are timed. Writes outputs/bench.json (`ratios` and what they are made of) and
outputs/bench.png.
"""

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import plain
import torch
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from recon.entry import keep_large_blocks
from recon.layers.grouping import PatchGrouper
from recon.losses.contrastive import CategoryContrast
from recon.losses.distillation import SmoothL1
from recon.losses.reconstruction import ChamferL2
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from recon.models.segmenter import Segmenter
from recon.ops.masking import random_mask
from recon.ops.sampling import farthest_point_sample
from recon.tasks.optim import parameter_groups

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WIDTHS = {"image": 768, "text": 512}
Step = Callable[[], Tensor]


class Row(NamedTuple):
    """One comparison: seconds of the plain definition and of ours."""

    name: str
    what: str
    plain: float
    ours: float

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.plain / self.ours


def now() -> float:
    """Return a clock that stands still while another process has the core."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def alternate(name: str, what: str, steps: tuple[Step, Step], rounds: int) -> Row:
    """Time two steps in turns, after two of each that are not counted."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        for step, times in zip(steps, taken, strict=True):
            start = now()
            step()
            if number > 1:
                times.append(now() - start)
    return Row(name, what, *(statistics.median(times) for times in taken))


def half(on: bool) -> Any:
    """Return autocast to bfloat16, or nothing."""
    return torch.autocast(DEVICE.type, torch.bfloat16) if on else nullcontext()


def pretraining(model: ReCon, batch: int, *, bf16: bool, fast: bool, live: Any = None) -> Step:
    """Return one step of the paper's pretraining; `live` teaches, or random features do."""
    torch.manual_seed(0)
    clouds = torch.randn(batch, 1024, 3, device=DEVICE)
    clouds = clouds / clouds.norm(dim=-1).amax(1)[:, None, None]
    taught = {name: torch.randn(batch, width, device=DEVICE) for name, width in WIDTHS.items()}
    mask = random_mask(clouds[:, :64], ratio=0.6)
    rebuild, imitate = ChamferL2(), SmoothL1()
    groups = parameter_groups(model)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=fast, foreach=False)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        known = taught if live is None else live()
        with half(bf16):
            out = model.rebuild(model.grouper(clouds), mask)
            predicted, target = out.predicted.float(), out.target.float()
            loss = rebuild(predicted, target) if fast else plain.chamfer(predicted, target).mean()
            for name, feature in known.items():
                loss = loss + imitate(out.queries[name].float(), feature)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def base() -> ReCon:
    """Return the paper's base network, without stochastic depth so that numbers can be compared."""
    torch.manual_seed(0)
    encoder, decoder = Encoder(384, drop_path=0.0), Decoder(384, drop_path=0.0)
    return ReCon(PatchGrouper(64, 32), encoder, decoder, Projections(384, WIDTHS)).to(DEVICE)


def same(ours: Step, theirs: Step, tolerance: float) -> None:
    """Raise AssertionError where the losses of three steps differ."""
    for _ in range(3):
        torch.testing.assert_close(ours(), theirs(), rtol=tolerance, atol=tolerance)


def steps(rounds: int) -> Iterator[Row]:
    """Compare a pretraining step, in float32 and bfloat16."""
    model = base()
    pair = (
        pretraining(plain.make_plain(model), 8, bf16=False, fast=False),
        pretraining(model, 8, bf16=False, fast=True),
    )
    same(*pair, tolerance=1e-5)
    yield alternate("step_fp32", "pretraining step, teachers given, float32, batch 8", pair, rounds)
    model = base()
    pair = (
        pretraining(plain.make_plain(model), 32, bf16=False, fast=False),
        pretraining(model, 32, bf16=True, fast=True),
    )
    yield alternate("step_bf16", "the same, bfloat16 against float32, batch 32", pair, rounds)


def teachers(rounds: int) -> Iterator[Row]:
    """Compare cached teachers in bfloat16 with live ones in float32."""
    from recon.teachers.image import TimmImageTeacher
    from recon.teachers.text import OpenClipTextTeacher

    image = TimmImageTeacher("vit_base_patch16_224", 768, pretrained=False).to(DEVICE)
    text = OpenClipTextTeacher("ViT-B-32-quickgelu", 512, weights=None).to(DEVICE)
    pictures = torch.randint(0, 256, (32, 3, 224, 224), dtype=torch.uint8, device=DEVICE)
    sentences = ["A point cloud model of a chair with white background."] * 32

    def live() -> dict[str, Tensor]:
        return {"image": image({"image": pictures}), "text": text({"text": sentences})}

    model = base()
    pair = (
        pretraining(plain.make_plain(model), 32, bf16=False, fast=False, live=live),
        pretraining(model, 32, bf16=True, fast=True),
    )
    what = "step with both teachers, batch 32: cached bfloat16 against live float32"
    yield alternate("step_cached_vs_live", what, pair, rounds)


def parts(rounds: int) -> Iterator[Row]:
    """Compare a part-segmentation step."""
    torch.manual_seed(0)
    model = Segmenter(PatchGrouper(128, 32), Encoder(384, drop_path=0.0), 50, objects=16).to(DEVICE)
    model.point_head.dropout.p = 0.0
    points = torch.randn(8, 2048, 3, device=DEVICE)
    labels = torch.randint(50, (8, 2048), device=DEVICE)
    objects = torch.randint(16, (8,), device=DEVICE)

    def step_of(network: nn.Module, fast: bool) -> Step:
        groups = parameter_groups(network)
        optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=fast, foreach=False)

        def step() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            scores = network(points, objects)
            loss = nn.functional.nll_loss(scores.flatten(0, 1), labels.flatten())
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    pair = step_of(plain.make_plain(model), fast=False), step_of(model, fast=True)
    same(*pair, tolerance=1e-4)
    yield alternate("partseg_fp32", "part-segmentation step, float32, batch 8", pair, rounds)


@torch.inference_mode()
def inference(rounds: int) -> Iterator[Row]:
    """Compare encoding of whole clouds."""
    model = base().eval()
    slow, clouds = plain.make_plain(model), torch.randn(32, 1024, 3, device=DEVICE)

    def ours() -> Tensor:
        with half(on=True):
            return model.encode(clouds).tokens

    what = "encoder inference, bfloat16 against float32, batch 32"
    yield alternate("inference_bf16", what, (lambda: slow.encode(clouds).tokens, ours), rounds)


def fps(rounds: int) -> Iterator[Row]:
    """Compare farthest point sampling."""
    for points, count, batch in ((1024, 64, 32), (2048, 128, 16), (8192, 1200, 2)):
        clouds = torch.randn(batch, points, 3, device=DEVICE)
        pair = (
            lambda c=clouds, n=count: plain.sample(c, n),
            lambda c=clouds, n=count: farthest_point_sample(c, n),
        )
        assert torch.equal(pair[0](), pair[1]())
        what = f"farthest point sampling, {batch} x {points} to {count}"
        yield alternate(f"fps_{points}_{count}", what, pair, 3 * rounds)


def self_contrast(rounds: int) -> Iterator[Row]:
    """Compare the contrast by category."""
    features = torch.randn(128, 384, device=DEVICE, requires_grad=True)
    category = torch.randint(55, (128,), device=DEVICE)
    loss = CategoryContrast()

    def with_gradient(function: Callable[[Tensor, Tensor], Tensor]) -> Step:
        def step() -> Tensor:
            value = function(features, category)
            value.backward()
            return value.detach()

        return step

    pair = with_gradient(plain.contrast), with_gradient(loss)
    same(*pair, tolerance=1e-5)
    what = "self-contrast by category and its gradient, batch 128"
    yield alternate("self_contrast_128", what, pair, rounds)


GROUPS = {
    "step": steps,
    "partseg": parts,
    "inference": inference,
    "fps": fps,
    "self": self_contrast,
    "teachers": teachers,
}


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: threads that wait for each other cost CPU time too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def peak(dtype: torch.dtype) -> float:
    """Return the largest GFLOP a second of a matrix product that this device reaches."""
    best = 0.0
    for size in (512, 1024, 2048):
        x = torch.randn(size, size, device=DEVICE).to(dtype)
        for _ in range(4):
            start = now()
            x @ x
            best = max(best, 2e-9 * size**3 / max(now() - start, 1e-9))
    return best


def draw(rows: list[Row], path: Path) -> None:
    """Draw the ratios as bars."""
    figure = Figure(figsize=(8, 0.5 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([row.name for row in rows], [row.ratio for row in rows], color="#e8743b")
    axes.bar_label(bars, [f"{row.ratio:.1f}" for row in rows], padding=3)
    axes.axvline(1, color="#667085", linewidth=1)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the plain definition, one thread")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run the asked rows, print them, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("options", nargs="*", help="only=<rows>, rounds=<number>, out=<folder>")
    told = dict(option.split("=", 1) for option in parser.parse_args().options)
    names = told.get("only", ",".join(GROUPS)).split(",")
    rounds, out = int(told.get("rounds", 3)), Path(told.get("out", "outputs"))
    keep_large_blocks()
    console, rows = Console(), list[Row]()
    with one_thread():
        peaks = {str(kind)[6:]: peak(kind) for kind in (torch.float32, torch.bfloat16)}
        for name in names:
            for row in GROUPS[name](rounds):
                console.print(f"{row.name:20} {row.ratio:6.2f}", highlight=False)
                rows.append(row)
    table = Table("", "plain, s", "ours, s", "plain / ours", box=SIMPLE, title=f"on {DEVICE}")
    for row in rows:
        table.add_row(row.what, f"{row.plain:.4f}", f"{row.ours:.4f}", f"{row.ratio:.2f}")
    console.print(table)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {
        "ratios": {row.name: round(row.ratio, 3) for row in rows},
        "seconds": {row.name: {"plain": row.plain, "ours": row.ours} for row in rows},
        "peak_gflops_per_second": peaks,
        "peak_memory_gb": memory,
        "machine": f"{platform.machine()}, {DEVICE}, one thread, torch {torch.__version__}",
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(found, indent=1))
    draw(rows, out / "bench.png")
    console.print(f"written to {out}/bench.json and bench.png", highlight=False)


if __name__ == "__main__":
    main()
