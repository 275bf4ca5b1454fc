"""Compare losses of seeded training with the reference, in float32 and bfloat16.

python scripts/bench/loss_curves.py    # on the bundled data
"""

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import reference
import torch
from rich.console import Console
from torch import Tensor

from recon.data.datasets.furniture import Furniture
from recon.layers.grouping import PatchGrouper
from recon.losses.reconstruction import ChamferL2
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from recon.ops.masking import random_mask
from recon.tasks.optim import parameter_groups

STEPS, BATCH = 50, 16


def build_network() -> ReCon:
    """Build a small network, as for pretraining on the bundled data."""
    torch.manual_seed(0)
    encoder = Encoder(128, depth=4, heads=4, drop_path=0.1, patch_widths=(32, 64, 128))
    decoder = Decoder(128, depth=2, heads=4, drop_path=0.1)
    projections = Projections(128, {"image": 1280, "text": 384})
    return ReCon(PatchGrouper(32, 32), encoder, decoder, projections)


def iter_batches() -> Iterator[Tensor]:
    """Yield batches of shapes, the same for every network."""
    shapes = Furniture(["train"])
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randperm(len(shapes), generator=generator)[:BATCH].tolist()
        points = torch.stack([torch.as_tensor(shapes.cloud(row).points[:1024]) for row in rows])
        yield points.float() - points.float().mean(1, keepdim=True)


def train(model: ReCon, *, bf16: bool = False) -> Tensor:
    """Train a network; return the loss of each step."""
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=5e-4)
    autocast = partial(torch.autocast, "cpu", torch.bfloat16) if bf16 else nullcontext
    losses = []
    for step, points in enumerate(iter_batches()):
        torch.manual_seed(step)
        with autocast():
            patches = model.grouper(points)
            out = model.forward_patches(patches, random_mask(patches.centers, 0.6))
        loss = ChamferL2()(out.predicted.float(), out.target)
        for query in out.projected_queries.values():
            loss = loss + 0.01 * (query.float() - points.mean()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def main() -> None:
    """Print the largest differences between the curves."""
    model = build_network()
    expected = train(reference.make_reference(model))
    float32, bfloat16 = train(copy.deepcopy(model)), train(copy.deepcopy(model), bf16=True)
    console = Console()
    console.print(f"losses of {STEPS} seeded steps, from {expected[0]:.4f} to {expected[-1]:.4f}")
    console.print(f"float32: at most {(float32 - expected).abs().max():.1e} from the reference")
    console.print(
        f"bfloat16: at most {(bfloat16 - expected).abs().max():.1e}, ends at {bfloat16[-1]:.4f}"
    )


if __name__ == "__main__":
    main()
