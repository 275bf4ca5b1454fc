import pytest
import torch
from torch.testing import assert_close

from recon.layers.attention import CrossAttention, SelfAttention, attend


def attention_reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int
) -> torch.Tensor:
    outputs = []
    for part in zip(*(x.chunk(heads, -1) for x in (q, k, v)), strict=True):
        query, key, value = part
        weights = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)
        outputs.append(weights @ value)
    return torch.cat(outputs, -1)


def test_self_attention_equals_its_definition() -> None:
    layer, x = SelfAttention(24, heads=3), torch.randn(2, 5, 24)
    expected = layer.proj(attention_reference(*layer.qkv(x).chunk(3, -1), heads=3))
    assert_close(layer(x), expected)


def test_cross_attention_equals_its_definition() -> None:
    layer, queries, x = CrossAttention(24, heads=3), torch.randn(2, 3, 24), torch.randn(2, 5, 24)
    expected = layer.proj(attention_reference(layer.q(queries), *layer.kv(x).chunk(2, -1), heads=3))
    assert_close(layer(queries, x), expected)


def test_num_last_returns_the_last_tokens() -> None:
    layer, x = SelfAttention(24, heads=3), torch.randn(2, 5, 24)
    assert_close(layer(x, num_last=2), layer(x)[:, -2:])


def test_bfloat16_attention_matches_float32() -> None:
    q, k, v = torch.randn(3, 2, 3, 5, 8)
    in_bf16 = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert_close(in_bf16.float(), attend(q, k, v), rtol=0.03, atol=0.03)


def test_cross_attention_gradients_equal_the_definition() -> None:
    layer = CrossAttention(24, heads=3)
    queries, x = torch.randn(2, 3, 24), torch.randn(2, 5, 24, requires_grad=True)
    inputs = [x, *layer.parameters()]
    output = layer.proj(attention_reference(layer.q(queries), *layer.kv(x).chunk(2, -1), heads=3))
    expected = torch.autograd.grad(output.square().sum(), inputs)
    for grad, expected_grad in zip(
        torch.autograd.grad(layer(queries, x).square().sum(), inputs), expected, strict=True
    ):
        assert_close(grad, expected_grad, rtol=1e-4, atol=1e-5)


def test_queries_do_not_attend_to_each_other() -> None:
    layer, x = CrossAttention(24, heads=3), torch.randn(2, 5, 24)
    queries = torch.randn(2, 3, 24)
    changed = queries.clone()
    changed[:, 0] += 1
    assert torch.equal(layer(queries, x)[:, 1:], layer(changed, x)[:, 1:])


@pytest.mark.parametrize("layer", [SelfAttention, CrossAttention])
def test_width_must_be_a_multiple_of_heads(layer: type) -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of the number of heads 3"):
        layer(10, heads=3)
