"""Multi-head self-attention and cross-attention, with a bias only in the output projection."""

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def _check_heads(dim: int, heads: int) -> int:
    """Return the number of heads; raise ValueError if it does not divide the width."""
    if heads < 1 or dim % heads:
        raise ValueError(f"width {dim} is not a multiple of the number of heads {heads}")
    return heads


def attend(
    q: Float[Tensor, "b h q d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h q d"]:
    """Compute scaled dot product attention; (B, heads, Q, d) -> (B, heads, Q, d).

    In bfloat16 on a CPU, it is two matrix products and a softmax: for the few tokens of a cloud,
    torch's function takes twice as long, and its backward pass several times as long.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


class SelfAttention(nn.Module):
    """Tokens attend to each other; (B, N, dim) -> (B, N, dim).

    With `num_last`, only the last tokens attend, to all tokens: (B, N, dim) -> (B, num_last, dim).
    """

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.heads = _check_heads(dim, heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, tokens: Float[Tensor, "b n d"], num_last: int | None = None
    ) -> Float[Tensor, "b q d"]:
        if num_last is None:
            q, k, v = self._project_heads(tokens, self.qkv.weight)
        else:
            weight_q, weight_kv = self.qkv.weight.tensor_split([tokens.shape[-1]])
            (q,) = self._project_heads(tokens[:, -num_last:], weight_q)
            k, v = self._project_heads(tokens, weight_kv)
        return self.proj(rearrange(attend(q, k, v), "b h n d -> b n (h d)"))

    def _project_heads(
        self, x: Float[Tensor, "b n d"], weight: Float[Tensor, "o d"]
    ) -> tuple[Tensor, ...]:
        """Apply one or more stacked projections, and split each into heads."""
        parts = weight.shape[0] // weight.shape[1]
        projected = F.linear(x, weight)
        return rearrange(projected, "b n (p h d) -> p b h n d", p=parts, h=self.heads).unbind(0)


class CrossAttention(nn.Module):
    """Queries attend to tokens; (B, Q, dim), (B, N, dim) -> (B, Q, dim).

    There are few queries and many tokens. The key projection is therefore applied to the queries,
    q (W x) = (W^T q) x, and the value projection to the weighted means, sum a (W x) = W (sum a x).
    The result is the same up to rounding, with a sixth of the operations.
    """

    def __init__(self, dim: int, *, heads: int) -> None:
        super().__init__()
        self.heads = _check_heads(dim, heads)
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, queries: Float[Tensor, "b q d"], tokens: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b q d"]:
        batch, (_, weight_v) = queries.shape[0], self._split_key_value()
        weights = rearrange(self.attention_maps(queries, tokens), "b h q n -> b (h q) n")
        means = weights.to(tokens.dtype) @ tokens
        values = rearrange(means, "b (h q) c -> h (b q) c", h=self.heads) @ weight_v.mT
        return self.proj(rearrange(values, "h (b q) d -> b q (h d)", b=batch))

    def attention_maps(
        self, queries: Float[Tensor, "b q d"], tokens: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b h q n"]:
        """Return the attention weights of queries over tokens, (B, heads, Q, N); they sum to 1."""
        batch, (weight_k, _) = queries.shape[0], self._split_key_value()
        q = rearrange(self.q(queries), "b q (h d) -> h (b q) d", h=self.heads)
        token_queries = rearrange(q @ weight_k, "h (b q) c -> b (h q) c", b=batch)
        weights = (token_queries @ tokens.mT * q.shape[-1] ** -0.5).softmax(-1)
        return rearrange(weights, "b (h q) n -> b h q n", h=self.heads)

    def _split_key_value(self) -> tuple[Tensor, Tensor]:
        """Return the key and value weights per head, (heads, d, dim)."""
        weight_k, weight_v = rearrange(
            self.kv.weight, "(two h d) c -> two h d c", two=2, h=self.heads
        )
        return weight_k, weight_v
