"""Hot paths of pretraining beside their plain definitions, interleaved in one process.

python scripts/bench/pretraining.py

Prints the median time of each and the ratio plain / ours; the numbers of both agree.
"""

import statistics
import time
from collections.abc import Callable

import plain
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from recon.entry import keep_large_blocks
from recon.layers.patch_embed import PatchEmbed
from recon.losses.contrastive import CategoryContrast
from recon.ops.chamfer import chamfer_l2
from recon.ops.sampling import farthest_point_sample

ROUNDS = 7


def backward(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Run a function and its gradient."""

    def both() -> Tensor:
        out = function()
        out.sum().backward()
        return out.detach()

    return both


def compare(ours: Callable[[], Tensor], defined: Callable[[], Tensor]) -> tuple[float, float]:
    """Return median milliseconds of both, taken in turns; raise where their numbers differ."""
    torch.testing.assert_close(ours(), defined(), rtol=1e-3, atol=1e-4)
    times: dict[Callable[[], Tensor], list[float]] = {ours: [], defined: []}
    for _ in range(ROUNDS):
        for function, taken in times.items():
            start = time.perf_counter()
            function()
            taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[ours]), statistics.median(times[defined])


def main() -> None:
    """Print a table of all comparisons."""
    keep_large_blocks()
    torch.manual_seed(0)
    embed, patches = PatchEmbed(384), torch.randn(8, 64, 32, 3)
    clouds = torch.randn(32, 1024, 3)
    x, y = torch.randn(2048, 32, 3, requires_grad=True), torch.randn(2048, 32, 3)
    features, category = torch.randn(128, 128, requires_grad=True), torch.randint(55, (128,))
    contrast = CategoryContrast()
    pairs = {
        "patch embedding, forward and backward, 8 x 64 x 32": (
            backward(lambda: embed(patches)),
            backward(lambda: plain.embed(embed, patches)),
        ),
        "farthest point sampling, 32 x 1,024 to 64": (
            lambda: farthest_point_sample(clouds, 64),
            lambda: plain.sample(clouds, 64),
        ),
        "Chamfer L2, forward and backward, 2,048 x 32 x 32": (
            backward(lambda: chamfer_l2(x, y)),
            backward(lambda: plain.chamfer(x, y)),
        ),
        "self-contrast by category, forward and backward, 128": (
            backward(lambda: contrast(features, category)),
            backward(lambda: plain.contrast(features, category)),
        ),
    }
    table = Table(title=f"{torch.get_num_threads()} threads, float32, medians of {ROUNDS}")
    for heading in ("", "ours, ms", "plain, ms", "plain / ours"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, (ours, defined) in pairs.items():
        fast, slow = compare(ours, defined)
        table.add_row(name, f"{fast:.1f}", f"{slow:.1f}", f"{slow / fast:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
