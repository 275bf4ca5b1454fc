"""Compile a whole network without graph breaks and compare a step: run by test_inference.

A program of its own, since the checks of shapes that the tests switch on cannot be compiled.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from recon.layers.grouping import PatchGrouper
from recon.models import inference
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from recon.models.segmenter import Segmenter
from recon.ops.masking import random_mask


def encoder() -> Encoder:
    return Encoder(24, depth=3, heads=3, patch_widths=(8, 16, 16), drop_path=0.0)


def pretraining(model: nn.Module) -> Tensor:
    points = torch.randn(4, 60, 3)
    out = model(points, random_mask(points[:, :10], 0.6))
    return (out.predicted - out.target).square().mean() + out.projected_queries[
        "image"
    ].square().mean()


def segmentation(model: nn.Module) -> Tensor:
    return model(torch.randn(4, 60, 3), torch.tensor([0, 1, 2, 1]))[..., 0].mean()


def gradients(model: nn.Module, loss: object) -> list[Tensor]:
    torch.manual_seed(1)
    loss(model).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


torch.manual_seed(0)
recon = ReCon(
    PatchGrouper(10, 8),
    encoder(),
    Decoder(24, depth=2, heads=3, group_size=8, drop_path=0.0),
    Projections(24, {"image": 5}),
)
segmenter = Segmenter(PatchGrouper(10, 8), encoder(), 5, num_objects=3, widths=(16, 12, 8))
segmenter.point_head.dropout.p = 0.0
traced = []


def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
    traced.append(graph)
    return graph.forward


for model, loss in ((recon, pretraining), (segmenter, segmentation)):
    compiled = deepcopy(model)
    traced.clear()
    inference.compile_parts(compiled, backend=backend)
    ours, theirs = gradients(compiled, loss), gradients(model, loss)
    assert len(traced) >= 2, "nothing was compiled"
    assert [*compiled.state_dict()] == [*model.state_dict()]
    deepcopy(compiled)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-5)
    print(type(model).__name__, len(traced), "graphs")
