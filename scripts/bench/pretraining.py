"""Hot paths of pretraining beside their plain definitions, interleaved in one process.

python scripts/bench/pretraining.py

Prints the median time of each and the ratio plain / ours; the numbers of both agree.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from rich.table import Table
from torch import Tensor

from recon.entry import keep_large_blocks
from recon.layers.patch_embed import PatchEmbed
from recon.losses.contrastive import CategoryContrast
from recon.ops.chamfer import chamfer_l2
from recon.ops.sampling import farthest_point_sample

ROUNDS = 7


def plain_embedding(embed: PatchEmbed, patches: Tensor) -> Tensor:
    """Convolutions, and each patch's maximum concatenated to its every point."""
    b, g, k, _ = patches.shape

    def conv(layer: torch.nn.Linear, x: Tensor) -> Tensor:
        return F.conv1d(x, layer.weight.unsqueeze(-1), layer.bias)

    x = patches.reshape(b * g, k, 3).transpose(1, 2)
    x = conv(embed.point_out, embed.point_norm(conv(embed.point_in, x)).relu())
    x = torch.cat([x.amax(2, keepdim=True).expand(-1, -1, k), x], 1)
    x = conv(embed.joint_out, embed.joint_norm(conv(embed.joint_in, x)).relu())
    return x.amax(2).view(b, g, -1)


def plain_sampling(points: Tensor, count: int) -> Tensor:
    """Farthest point sampling over (B, N, 3), a fresh tensor for every intermediate."""
    rows = torch.arange(len(points))
    picked = torch.zeros(len(points), count, dtype=torch.long)
    nearest = torch.full(points.shape[:2], torch.inf)
    for i in range(1, count):
        last = points[rows, picked[:, i - 1]].unsqueeze(1)
        nearest = torch.minimum(nearest, ((points - last) ** 2).sum(-1))
        picked[:, i] = nearest.argmax(1)
    return picked


def plain_chamfer(x: Tensor, y: Tensor) -> Tensor:
    """Squared Chamfer distance through all pairwise differences."""
    squared = (x.unsqueeze(2) - y.unsqueeze(1)).square().sum(-1)
    return squared.amin(2).mean(1) + squared.amin(1).mean(1)


def plain_contrast(features: Tensor, category: Tensor) -> Tensor:
    """Contrast by category, anchor by anchor."""
    features = F.normalize(features, dim=-1)
    losses = []
    for anchor, own in zip(features, category, strict=True):
        similarity = features @ anchor / 0.1
        positive = similarity[category == own].mean()
        losses.append(
            torch.cat([positive[None], similarity[category != own]]).logsumexp(0) - positive
        )
    return torch.stack(losses).mean()


def backward(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Run a function and its gradient."""

    def both() -> Tensor:
        out = function()
        out.sum().backward()
        return out.detach()

    return both


def compare(ours: Callable[[], Tensor], plain: Callable[[], Tensor]) -> tuple[float, float]:
    """Return median milliseconds of both, taken in turns; raise where their numbers differ."""
    torch.testing.assert_close(ours(), plain(), rtol=1e-3, atol=1e-4)
    times: dict[Callable[[], Tensor], list[float]] = {ours: [], plain: []}
    for _ in range(ROUNDS):
        for function, taken in times.items():
            start = time.perf_counter()
            function()
            taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[ours]), statistics.median(times[plain])


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
            backward(lambda: plain_embedding(embed, patches)),
        ),
        "farthest point sampling, 32 x 1,024 to 64": (
            lambda: farthest_point_sample(clouds, 64),
            lambda: plain_sampling(clouds, 64),
        ),
        "Chamfer L2, forward and backward, 2,048 x 32 x 32": (
            backward(lambda: chamfer_l2(x, y)),
            backward(lambda: plain_chamfer(x, y)),
        ),
        "self-contrast by category, forward and backward, 128": (
            backward(lambda: contrast(features, category)),
            backward(lambda: plain_contrast(features, category)),
        ),
    }
    table = Table(title=f"{torch.get_num_threads()} threads, float32, medians of {ROUNDS}")
    for heading in ("", "ours, ms", "plain, ms", "plain / ours"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, (ours, plain) in pairs.items():
        fast, slow = compare(ours, plain)
        table.add_row(name, f"{fast:.1f}", f"{slow:.1f}", f"{slow / fast:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
