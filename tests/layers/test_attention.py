import pytest
import torch
from torch.testing import assert_close

from recon.layers.attention import CrossAttention, SelfAttention


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    outputs = []
    for part in zip(*(x.chunk(heads, -1) for x in (q, k, v)), strict=True):
        query, key, value = part
        weights = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)
        outputs.append(weights @ value)
    return torch.cat(outputs, -1)


def test_self_attention_equals_its_definition() -> None:
    layer, x = SelfAttention(24, heads=3), torch.randn(2, 5, 24)
    expected = layer.proj(naive(*layer.qkv(x).chunk(3, -1), heads=3))
    assert_close(layer(x), expected)


def test_cross_attention_equals_its_definition() -> None:
    layer, queries, x = CrossAttention(24, heads=3), torch.randn(2, 3, 24), torch.randn(2, 5, 24)
    expected = layer.proj(naive(layer.q(queries), *layer.kv(x).chunk(2, -1), heads=3))
    assert_close(layer(queries, x), expected)


def test_queries_do_not_attend_to_each_other() -> None:
    layer, x = CrossAttention(24, heads=3), torch.randn(2, 5, 24)
    queries = torch.randn(2, 3, 24)
    changed = queries.clone()
    changed[:, 0] += 1
    assert torch.equal(layer(queries, x)[:, 1:], layer(changed, x)[:, 1:])


@pytest.mark.parametrize("layer", [SelfAttention, CrossAttention])
def test_refuses_a_width_that_heads_do_not_divide(layer: type) -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of the number of heads 3"):
        layer(10, heads=3)
