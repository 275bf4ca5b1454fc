"""Compile networks without graph breaks and compare a step; test_inference starts this file.

It is a separate program because the shape checks of the tests cannot be compiled.
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


def build_encoder() -> Encoder:
    return Encoder(24, depth=3, heads=3, patch_widths=(8, 16, 16), drop_path=0.0)


def pretraining_loss(model: nn.Module) -> Tensor:
    points = torch.randn(4, 60, 3)
    out = model(points, random_mask(points[:, :10], 0.6))
    return (out.predicted - out.target).square().mean() + out.projected_queries[
        "image"
    ].square().mean()


def segmentation_loss(model: nn.Module) -> Tensor:
    return model(torch.randn(4, 60, 3), torch.tensor([0, 1, 2, 1]))[..., 0].mean()


def gradients(model: nn.Module, loss: object) -> list[Tensor]:
    torch.manual_seed(1)
    loss(model).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


torch.manual_seed(0)
recon = ReCon(
    PatchGrouper(10, 8),
    build_encoder(),
    Decoder(24, depth=2, heads=3, group_size=8, drop_path=0.0),
    Projections(24, {"image": 5}),
)
segmenter = Segmenter(PatchGrouper(10, 8), build_encoder(), 5, num_objects=3, widths=(16, 12, 8))
segmenter.point_head.dropout.p = 0.0
graphs = []


def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
    graphs.append(graph)
    return graph.forward


for model, loss in ((recon, pretraining_loss), (segmenter, segmentation_loss)):
    compiled = deepcopy(model)
    graphs.clear()
    inference.compile_parts(compiled, backend=backend)
    grads, expected_grads = gradients(compiled, loss), gradients(model, loss)
    assert len(graphs) >= 2, "nothing was compiled"
    assert [*compiled.state_dict()] == [*model.state_dict()]
    deepcopy(compiled)
    for a, b in zip(grads, expected_grads, strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-5)
    print(type(model).__name__, len(graphs), "graphs")
