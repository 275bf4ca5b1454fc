"""Segmenters against the released implementation and a plain definition."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from conftest import assert_near, released_arrays, released_json, released_path
from recon.checkpoints.loading import build_metadata, load
from recon.checkpoints.official_keys import (
    from_official_key,
    from_official_state_dict,
    to_official_key,
)
from recon.checkpoints.reader import METADATA_KEY
from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder
from recon.models.segmenter import Segmenter, default_out_indices
from recon.ops.interpolation import three_nn

ARRAYS = released_arrays("recon_seg_small.npz")
FILE = "recon_seg_small.pth"


def load_released() -> Segmenter:
    settings = {"num_heads": 3, "num_groups": 64, "group_size": 32}
    return load(released_path(FILE), task="part_segment", **settings)


def test_log_probabilities_match_the_released_ones() -> None:
    model = load_released()
    with torch.no_grad():
        scores = model(ARRAYS("points"), ARRAYS("label")[:, 0])
    assert_near(scores, ARRAYS("log_probs"))
    assert torch.allclose(scores.exp().sum(-1), torch.ones(2, 1024), atol=1e-5)


def test_gradients_match_the_released_ones() -> None:
    model = load_released()
    scores = model(ARRAYS("points"), ARRAYS("label")[:, 0])
    loss = nn.functional.nll_loss(scores.flatten(0, 1), ARRAYS("target").flatten())
    assert_near(loss, ARRAYS("loss"))
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    for name, norm in released_json("recon_seg_small_gradnorms.json").items():
        grad = grads[from_official_key(name)]
        grad_norm = 0.0 if grad is None else grad.norm().item()
        assert grad_norm == pytest.approx(norm or 0.0, rel=2e-4, abs=1e-5), name


def test_official_keys_round_trip() -> None:
    state = torch.load(released_path(FILE), weights_only=False)["model_state_dict"]
    for name in from_official_state_dict(state):
        assert to_official_key(name, "segment") in state


def build_segmenter(objects: int | None, channels: int = 3) -> Segmenter:
    torch.manual_seed(0)
    encoder = Encoder(24, depth=3, heads=2, patch_widths=(8, 16, 16))
    names = {
        "class_names": ["leg", "top", "shade"],
        "object_names": ["table", "lamp"] if objects else [],
    }
    parts = {"table": [0, 1], "lamp": [2]} if objects else {}
    return Segmenter(
        PatchGrouper(8, 8), encoder, 3, num_objects=objects, channels=channels, parts=parts, **names
    )


def segment_by_definition(model: Segmenter, channels: Tensor, label: Tensor | None) -> Tensor:
    """Concatenate all features at each point, then apply the layers, as in the paper."""
    b, n, _ = channels.shape
    outputs = model.encoder.forward_intermediates(
        model.grouper(channels[..., :3].contiguous()), model.out_indices
    )
    tokens = torch.cat(outputs.tokens, -1)
    nearest = three_nn(channels[..., :3], outputs.centers)
    rows = nearest.indices.flatten(1).unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    interpolated = (tokens.gather(1, rows).view(b, n, 3, -1) * nearest.weight.unsqueeze(-1)).sum(2)
    cloud = [tokens.amax(1), tokens.mean(1)]
    if model.object_embed is not None:
        cloud += [outputs.queries.amax(1), model.object_embed(label)]

    def layer(x: Tensor, linear: nn.Linear, norm: nn.BatchNorm1d) -> Tensor:
        return norm(linear(x).transpose(1, 2)).relu().transpose(1, 2)

    p, head = model.propagate, model.point_head
    x = layer(torch.cat([channels, interpolated], -1), p.joint_in, p.joint_norm)
    x = layer(x, p.out, p.out_norm)
    x = torch.cat([x, torch.cat(cloud, -1).unsqueeze(1).expand(-1, n, -1)], -1)
    x = layer(x, head.joint_in, head.joint_norm)
    return head.out(layer(x, head.middle, head.middle_norm)).log_softmax(-1)


@pytest.mark.parametrize(("objects", "channels"), [(2, 3), (None, 3), (None, 9)])
def test_segmenter_and_gradients_equal_the_definition(objects: int | None, channels: int) -> None:
    model = build_segmenter(objects, channels).double().train()
    model.point_head.dropout.p = 0.0
    for module in model.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    points = torch.randn(2, 50, channels).double()
    label = torch.tensor([0, 1]) if objects else None
    actual, expected = model(points, label), segment_by_definition(model, points, label)
    assert torch.allclose(actual, expected, atol=1e-9)
    weight = torch.randn_like(actual)
    parameters = [p for p in model.parameters()]
    grads = [torch.autograd.grad((x * weight).sum(), parameters, allow_unused=True)
             for x in (actual, expected)]  # fmt: skip
    for a, b in zip(*grads, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-9)


@pytest.mark.parametrize(
    ("objects", "channels", "task"), [(2, 3, "part_segment"), (None, 9, "scene_segment")]
)
def test_checkpoint_round_trip(
    objects: int | None, channels: int, task: str, tmp_path: Path
) -> None:
    model = build_segmenter(objects, channels).eval()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({METADATA_KEY: build_metadata(model), "state_dict": state}, tmp_path / "a.ckpt")
    loaded = load(tmp_path / "a.ckpt", task=task)
    assert loaded.class_names == model.class_names
    assert (loaded.object_names, loaded.parts) == (model.object_names, model.parts)
    points = torch.randn(2, 50, channels)
    label = torch.tensor([1, 0]) if objects else None
    assert torch.equal(loaded(points, label), model(points, label))
    with pytest.raises(ValueError, match=f"holds weights for task='{task}', not for 'classify'"):
        load(tmp_path / "a.ckpt", task="classify")


def test_invalid_input_raises_value_error() -> None:
    model = build_segmenter(2).eval()
    points = torch.randn(2, 50, 3)
    with pytest.raises(ValueError, match="points have 6 channels, but the network expects 3"):
        model(torch.randn(2, 50, 6), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="needs the object class of each cloud"):
        model(points)
    with pytest.raises(ValueError, match="object classes must be in 0 to 1, got"):
        model(points, torch.tensor([0, 2]))
    with pytest.raises(
        ValueError, match="needs an encoder with queries, and this encoder has none"
    ):
        Segmenter(PatchGrouper(8, 8), Encoder(24, depth=3, heads=2, queries=()), 3, num_objects=2)


def test_out_indices_are_a_third_two_thirds_and_all() -> None:
    assert default_out_indices(12) == (3, 7, 11)
    assert default_out_indices(4) == (0, 1, 3)
    assert default_out_indices(1) == (0,)
