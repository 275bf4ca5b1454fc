import pytest
import torch
from torch.testing import assert_close

from recon.layers.attention import CrossAttention, SelfAttention, attend


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


def test_the_last_tokens_alone_attend_as_they_do_among_all() -> None:
    layer, x = SelfAttention(24, heads=3), torch.randn(2, 5, 24)
    assert_close(layer(x, num_last=2), layer(x)[:, -2:])


def test_both_forms_of_attention_agree() -> None:
    q, k, v = torch.randn(3, 2, 3, 5, 8)
    in_bf16 = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert_close(in_bf16.float(), attend(q, k, v), rtol=0.03, atol=0.03)


def test_gradients_of_cross_attention_equal_those_of_its_definition() -> None:
    layer = CrossAttention(24, heads=3)
    queries, x = torch.randn(2, 3, 24), torch.randn(2, 5, 24, requires_grad=True)
    inputs = [x, *layer.parameters()]
    defined = layer.proj(naive(layer.q(queries), *layer.kv(x).chunk(2, -1), heads=3))
    expected = torch.autograd.grad(defined.square().sum(), inputs)
    for ours, theirs in zip(
        torch.autograd.grad(layer(queries, x).square().sum(), inputs), expected, strict=True
    ):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


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
