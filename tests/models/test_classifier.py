"""Classifiers against the released implementation, and on other encoders."""

from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import assert_near, released_arrays, released_json, released_path
from recon.checkpoints.loading import build_metadata, load
from recon.checkpoints.official_keys import (
    from_official_key,
    from_official_state_dict,
    to_official_key,
)
from recon.checkpoints.reader import METADATA_KEY
from recon.layers.grouping import PatchGrouper
from recon.models.classifier import Classifier, pool_classifier_features
from recon.models.encoder import Encoder
from recon.models.heads import linear_head, mlp_head
from recon.models.two_tower import Tower, TwoTowerEncoder

ARRAYS = released_arrays("recon_cls_small.npz")
FEATURE_ARRAYS = released_arrays("recon_svm_zeroshot_small.npz")
FILES = {"full": "recon_cls_small.pth", "linear": "recon_cls_small_linear.pth"}


def load_released(kind: str) -> Classifier:
    return load(released_path(FILES[kind]), task="classify", num_heads=3, num_groups=64)


@pytest.mark.parametrize("kind", FILES)
@torch.no_grad()
def test_logits_and_tokens_match_the_released_ones(kind: str) -> None:
    model = load_released(kind)
    encoding = model.encode(ARRAYS("points"))
    queries = torch.stack([*encoding.queries.values()], 1)
    assert_near(torch.cat([queries, encoding.tokens], 1), ARRAYS(f"tokens_{kind}"))
    logits = model(ARRAYS("points"))
    assert_near(logits, ARRAYS(f"logits_{kind}"))
    loss = nn.functional.cross_entropy(logits, ARRAYS("target"))
    assert_near(loss, ARRAYS(f"loss_{kind}"))


def test_gradients_match_the_released_ones() -> None:
    model = load_released("full")
    nn.functional.cross_entropy(model(ARRAYS("points")), ARRAYS("target")).backward()
    norms = released_json("recon_cls_small_gradnorms.json")["full"]
    grads = {name: p.grad for name, p in model.named_parameters()}
    for name, norm in norms.items():
        grad = grads[from_official_key(name)]
        grad_norm = 0.0 if grad is None else grad.norm().item()
        assert grad_norm == pytest.approx(norm or 0.0, rel=1e-4, abs=1e-6), name


def test_official_keys_round_trip() -> None:
    state = torch.load(released_path(FILES["full"]), weights_only=False)["base_model"]
    for name in from_official_state_dict(state):
        assert to_official_key(name, "classify") in state


@pytest.mark.parametrize("file", ["recon_pretrain_small.pth"])
@torch.no_grad()
def test_probe_and_zero_shot_features_match_the_released_ones(file: str) -> None:
    model = load(released_path(file), num_heads=3, num_groups=64)
    encoding = model.encode(FEATURE_ARRAYS("points"))
    projected = model.projections(encoding.queries)
    assert_near(encoding.pooled(), FEATURE_ARRAYS("svm_feature"))
    for name in ("text", "image"):
        assert_near(projected[name], FEATURE_ARRAYS(f"zeroshot_feature_{name}"))
    assert_near(
        0.25 * projected["text"] + projected["image"], FEATURE_ARRAYS("zeroshot_feature_full")
    )


def build_classifier(head=mlp_head, queries=("cls", "image", "text")) -> Classifier:  # noqa: ANN001
    torch.manual_seed(0)
    encoder = Encoder(24, depth=3, heads=2, queries=queries, patch_widths=(8, 16, 16))
    return Classifier(PatchGrouper(8, 8), encoder, 5, head=head)


@pytest.mark.parametrize("head", [mlp_head, linear_head])
def test_checkpoint_round_trip(head: object, tmp_path: Path) -> None:
    model = build_classifier(head)
    nn.init.normal_(model.encoder.queries.tokens["cls"])
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({METADATA_KEY: build_metadata(model), "state_dict": state}, tmp_path / "c.ckpt")
    points = torch.randn(3, 64, 3)
    loaded = load(tmp_path / "c.ckpt", task="classify")
    assert torch.equal(loaded(points), model.eval()(points))
    assert loaded.num_classes == 5
    with pytest.raises(ValueError, match="holds weights for task='classify', not for 'pretrain'"):
        load(tmp_path / "c.ckpt")


def test_two_towers_classify(tmp_path: Path) -> None:
    sizes = {"depth": 2, "heads": 2, "patch_widths": (8, 16, 16)}
    encoder = TwoTowerEncoder(Tower(24, **sizes), Tower(24, queries=("image", "text"), **sizes))
    model = Classifier(PatchGrouper(8, 8), encoder, 5).eval()
    points = torch.randn(3, 64, 3)
    assert model(points).shape == (3, 5)
    assert pool_classifier_features(model.encode(points)).shape == (3, 3 * 24)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({METADATA_KEY: build_metadata(model), "state_dict": state}, tmp_path / "c.ckpt")
    assert torch.equal(load(tmp_path / "c.ckpt", task="classify")(points), model(points))


def test_task_of_the_checkpoint_is_checked() -> None:
    with pytest.raises(ValueError, match="holds weights for task='pretrain', not for 'classify'"):
        load(released_path("recon_pretrain_small.pth"), task="classify", num_heads=3, num_groups=64)
    with pytest.raises(ValueError, match="unknown task 'paint': choose 'pretrain' or 'classify'"):
        load(released_path(FILES["full"]), task="paint")  # type: ignore[call-overload]


def test_gradients_flow_from_queries_to_patch_tokens() -> None:
    model = build_classifier()
    encoding = model.encode(torch.randn(3, 64, 3))
    # The sum is weighted, since the sum of a normalized query is constant.
    (encoding.queries["image"] * torch.arange(24)).sum().backward()
    assert model.encoder.embed.point_in.weight.grad.abs().sum() > 0


def test_cls_token_is_initialized_to_zero() -> None:
    assert build_classifier().encoder.queries.tokens["cls"].abs().sum() == 0
    assert build_classifier().encoder.queries.tokens["image"].abs().sum() > 0
