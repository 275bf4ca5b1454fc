import pytest
import torch
from torch.testing import assert_close

from recon.layers.grouping import PatchGrouper
from recon.models.encoder import Encoder, drop_path_rates
from recon.ops.masking import split_by_mask


def build_encoder(**changes: object) -> Encoder:
    return Encoder(24, depth=3, heads=3, patch_widths=(8, 16, 16), **changes)


PATCHES = PatchGrouper(10, 8)(torch.randn(2, 60, 3))
MASK = torch.tensor([[True] * 6 + [False] * 4, [False, True] * 4 + [True, True]])
VISIBLE = split_by_mask(MASK, 10).visible


def test_positions_are_added_before_every_block() -> None:
    model = build_encoder().eval()
    tokens = model.embed(PATCHES.points)
    for block in model.blocks:
        tokens = block(tokens + model.position(PATCHES.centers)).tokens
    assert_close(model(PATCHES).tokens, model.norm(tokens))


def test_masked_patches_do_not_affect_the_tokens() -> None:
    model = build_encoder().eval()
    moved = PATCHES._replace(points=PATCHES.points + MASK[..., None, None] * 5.0)
    assert_close(model(PATCHES, VISIBLE).tokens, model(moved, VISIBLE).tokens)


def test_visible_patches_keep_their_order() -> None:
    centers = build_encoder()(PATCHES, VISIBLE).centers
    assert torch.equal(
        centers, torch.stack([c[~m] for c, m in zip(PATCHES.centers, MASK, strict=True)])
    )


@pytest.mark.parametrize("stop", [True, False])
def test_stop_gradient_blocks_gradients_from_queries_to_tokens(stop: bool) -> None:
    model = build_encoder(stop_gradient=stop)
    sum(q.square().sum() for q in model(PATCHES, VISIBLE).queries.values()).backward()
    assert (model.embed.point_in.weight.grad is None) is stop
    assert (model.blocks[0].attn.qkv.weight.grad is None) is stop
    assert model.queries.blocks[0].attn.q.weight.grad.abs().sum() > 0


def test_without_queries_the_tokens_are_the_same() -> None:
    model, without_queries = build_encoder().eval(), build_encoder(queries=()).eval()
    without_queries.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("queries.")}
    )
    assert torch.equal(model(PATCHES).tokens, without_queries(PATCHES).tokens)
    assert without_queries(PATCHES).queries == {}


def test_pooled_joins_queries_and_patches() -> None:
    encoding = build_encoder()(PATCHES)
    queries = torch.stack([*encoding.queries.values()], 1)
    assert_close(encoding.pooled()[:, :24], queries.amax(1))
    assert_close(encoding.pooled()[:, 24:], encoding.tokens.amax(1) + encoding.tokens.mean(1))


def test_stochastic_depth_rises_linearly_from_zero() -> None:
    assert drop_path_rates(0.1, 5) == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])
