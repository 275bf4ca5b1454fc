"""Compare the outputs and the times of optimized paths and reference implementations."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import reference
import torch
from timing import (
    DEVICE,
    Comparison,
    Step,
    autocast_bf16,
    check_same_output,
    compare_times,
    with_backward,
)
from torch import Tensor, nn

from recon.data.io.text_table import read_table
from recon.data.transforms import Compose, RandomScale, RandomTranslate
from recon.layers.grouping import PatchGrouper
from recon.layers.patch_embed import PatchEmbed
from recon.losses.contrastive import CategoryContrast
from recon.losses.distillation import SmoothL1
from recon.losses.reconstruction import ChamferL2
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.inference import fold_batch_norms
from recon.models.recon import Projections, ReCon
from recon.models.segmenter import Segmenter
from recon.ops.chamfer import chamfer_l2
from recon.ops.masking import random_mask
from recon.ops.sampling import farthest_point_sample
from recon.tasks.optim import parameter_groups

TEACHER_WIDTHS = {"image": 768, "text": 512}


def make_pretraining_step(
    model: ReCon, batch: int, *, bf16: bool, fast: bool, live: Any = None, points: int = 1024
) -> Step:
    """Return a step of the paper's pretraining, with `live` teachers or random features."""
    torch.manual_seed(0)
    clouds = torch.randn(batch, points, 3, device=DEVICE)
    clouds = clouds / clouds.norm(dim=-1).amax(1)[:, None, None]
    features = {
        name: torch.randn(batch, width, device=DEVICE) for name, width in TEACHER_WIDTHS.items()
    }
    mask = random_mask(clouds[:, : model.grouper.groups], ratio=0.6)
    reconstruction, distillation = ChamferL2(), SmoothL1()
    groups = parameter_groups(model)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=fast, foreach=False)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        targets = features if live is None else live()
        with autocast_bf16(bf16):
            out = model.forward_patches(model.grouper(clouds), mask)
            predicted, target = out.predicted.float(), out.target.float()
            loss = (
                reconstruction(predicted, target)
                if fast
                else reference.chamfer_l2(predicted, target).mean()
            )
            for name, feature in targets.items():
                loss = loss + distillation(out.projected_queries[name].float(), feature)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def build_base_model(groups: int = 64, **settings: Any) -> ReCon:
    """Return the paper's base network without stochastic depth, so that results are comparable."""
    torch.manual_seed(0)
    encoder = Encoder(384, drop_path=0.0, **settings)
    settings.pop("embed_visible_only", None)
    decoder = Decoder(384, drop_path=0.0, **settings)
    return ReCon(PatchGrouper(groups, 32), encoder, decoder, Projections(384, TEACHER_WIDTHS)).to(
        DEVICE
    )


def compare_pretraining_steps(rounds: int) -> Iterator[Comparison]:
    """Compare a pretraining step in float32 and bfloat16."""
    model = build_base_model()
    pair = (
        make_pretraining_step(reference.make_reference(model), 8, bf16=False, fast=False),
        make_pretraining_step(model, 8, bf16=False, fast=True),
    )
    check_same_output(pair, tolerance=1e-5)
    yield compare_times(
        "step_fp32", "pretraining step, random teacher features, float32, batch 8", pair, rounds
    )
    model = build_base_model()
    pair = (
        make_pretraining_step(reference.make_reference(model), 32, bf16=False, fast=False),
        make_pretraining_step(model, 32, bf16=True, fast=True),
    )
    yield compare_times("step_bf16", "the same, bfloat16 against float32, batch 32", pair, rounds)


def compare_teachers(rounds: int) -> Iterator[Comparison]:
    """Compare cached teachers in bfloat16 with live teachers in float32."""
    from recon.teachers.image import TimmImageTeacher
    from recon.teachers.text import OpenClipTextTeacher

    image = TimmImageTeacher("vit_base_patch16_224", 768, pretrained=False).to(DEVICE)
    text = OpenClipTextTeacher("ViT-B-32-quickgelu", 512, weights=None).to(DEVICE)
    images = torch.randint(0, 256, (32, 3, 224, 224), dtype=torch.uint8, device=DEVICE)
    sentences = ["A point cloud model of a chair with white background."] * 32

    def live() -> dict[str, Tensor]:
        return {"image": image({"image": images}), "text": text({"text": sentences})}

    model = build_base_model()
    pair = (
        make_pretraining_step(
            reference.make_reference(model), 32, bf16=False, fast=False, live=live
        ),
        make_pretraining_step(model, 32, bf16=True, fast=True),
    )
    description = "step with both teachers, batch 32: cached bfloat16 against live float32"
    yield compare_times("step_cached_vs_live", description, pair, rounds)


def compare_part_segmentation(rounds: int) -> Iterator[Comparison]:
    """Compare a part-segmentation step."""
    torch.manual_seed(0)
    model = Segmenter(PatchGrouper(128, 32), Encoder(384, drop_path=0.0), 50, num_objects=16).to(
        DEVICE
    )
    model.point_head.dropout.p = 0.0
    points = torch.randn(8, 2048, 3, device=DEVICE)
    labels = torch.randint(50, (8, 2048), device=DEVICE)
    objects = torch.randint(16, (8,), device=DEVICE)

    def make_step(network: nn.Module, fast: bool) -> Step:
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

    pair = make_step(reference.make_reference(model), fast=False), make_step(model, fast=True)
    check_same_output(pair, tolerance=1e-4)
    yield compare_times("partseg_fp32", "part-segmentation step, float32, batch 8", pair, rounds)


@torch.inference_mode()
def compare_inference(rounds: int) -> Iterator[Comparison]:
    """Compare the encoding of complete clouds."""
    model = build_base_model().eval()
    plain, folded = reference.make_reference(model), fold_batch_norms(model, torch.bfloat16)
    clouds = torch.randn(32, 1024, 3, device=DEVICE)

    def optimized() -> Tensor:
        with autocast_bf16(enabled=True):
            return folded.encode_patches(model.grouper(clouds)).tokens

    description = "encoder inference, bfloat16 against float32, batch 32"
    yield compare_times(
        "inference_bf16", description, (lambda: plain.encode(clouds).tokens, optimized), rounds
    )


def compare_fps(rounds: int) -> Iterator[Comparison]:
    """Compare farthest point sampling on clouds without ties."""
    torch.manual_seed(0)
    for points, count, batch in ((1024, 64, 32), (2048, 128, 16), (8192, 1200, 2)):
        clouds = torch.randn(batch, points, 3, device=DEVICE)
        pair = (
            lambda c=clouds, n=count: reference.farthest_point_sample(c, n),
            lambda c=clouds, n=count: farthest_point_sample(c, n),
        )
        assert torch.equal(pair[0](), pair[1]())
        description = f"farthest point sampling, {batch} x {points} to {count}"
        yield compare_times(f"fps_{points}_{count}", description, pair, 3 * rounds)


def compare_self_contrast(rounds: int) -> Iterator[Comparison]:
    """Compare the contrastive loss by category."""
    features = torch.randn(128, 384, device=DEVICE, requires_grad=True)
    category = torch.randint(55, (128,), device=DEVICE)
    loss = CategoryContrast()
    pair = (
        with_backward(lambda: reference.category_contrast(features, category)),
        with_backward(lambda: loss(features, category)),
    )
    check_same_output(pair, tolerance=1e-5)
    description = "self-contrast by category and its gradient, batch 128"
    yield compare_times("self_contrast_128", description, pair, rounds)


def compare_patch_embedding(rounds: int) -> Iterator[Comparison]:
    """Compare the patch embedding with all patches visible, and the Chamfer distance."""
    embed = PatchEmbed(384).to(DEVICE)
    patches = torch.randn(8, 64, 32, 3, device=DEVICE)
    pair = (
        with_backward(lambda: reference.embed_patches(embed, patches)),
        with_backward(lambda: embed(patches)),
    )
    check_same_output(pair, tolerance=1e-4)
    description = "patch embedding and its gradient, 8 x 64 x 32"
    yield compare_times("embed_fp32", description, pair, rounds)
    x = torch.randn(2048, 32, 3, device=DEVICE, requires_grad=True)
    y = torch.randn(2048, 32, 3, device=DEVICE)
    pair = (
        with_backward(lambda: reference.chamfer_l2(x, y)),
        with_backward(lambda: chamfer_l2(x, y)),
    )
    check_same_output(pair, tolerance=1e-4)
    yield compare_times("chamfer", "Chamfer L2 and its gradient, 2,048 x 32 x 32", pair, rounds)


def compare_augmentation(rounds: int) -> Iterator[Comparison]:
    """Compare scaling and translating a batch with a loop over its clouds."""
    clouds = torch.randn(128, 1024, 3, device=DEVICE)
    batched = Compose([RandomScale(), RandomTranslate()])
    pair = (lambda: reference.augment(clouds)), (lambda: batched(clouds))
    description = "scaling and translating, batch 128"
    yield compare_times("augmentation_128", description, pair, 3 * rounds)


def compare_modelnet_preparation(rounds: int) -> Iterator[Comparison]:
    """Compare preparing a shape of ModelNet's text tree, 10,000 points to 8,192."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "chair_0001.txt"
        np.savetxt(path, np.random.default_rng(0).normal(size=(10000, 6)), "%.6f", delimiter=",")

        def optimized() -> Tensor:
            points = torch.from_numpy(read_table(path).astype(np.float32)[:, :3])
            return farthest_point_sample(points[None], 8192)[0]

        pair = (lambda: torch.from_numpy(reference.prepare_modelnet_shape(path, 8192))), optimized
        check_same_output(pair, tolerance=0, times=1)
        description = "preparing a shape of ModelNet's text tree"
        yield compare_times("modelnet_text", description, pair, rounds, warmup=0)


COMPARISONS = {
    "step": compare_pretraining_steps,
    "partseg": compare_part_segmentation,
    "inference": compare_inference,
    "fps": compare_fps,
    "self": compare_self_contrast,
    "teachers": compare_teachers,
    "embed": compare_patch_embedding,
    "augment": compare_augmentation,
    "modelnet": compare_modelnet_preparation,
}
