"""Multi-head attention as the released weights have it: no bias but on the output."""

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def _check_heads(dim: int, heads: int) -> int:
    if heads < 1 or dim % heads:
        raise ValueError(f"width {dim} is not a multiple of the number of heads {heads}")
    return heads


def attend(
    q: Float[Tensor, "b h q d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h q d"]:
    """Scaled dot product attention.

    In bfloat16 on a CPU torch's own takes twice as long at the few tokens of a cloud as two
    products around a softmax, and its backward several times as long.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


class SelfAttention(nn.Module):
    """Tokens attend to each other; (B, N, dim) -> (B, N, dim).

    With `last`, only the last tokens attend, to all of them: (B, N, dim) -> (B, last, dim).
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
            q, k, v = self._heads(tokens, self.qkv.weight)
        else:
            of_q, of_kv = self.qkv.weight.tensor_split([tokens.shape[-1]])
            (q,) = self._heads(tokens[:, -num_last:], of_q)
            k, v = self._heads(tokens, of_kv)
        return self.proj(rearrange(attend(q, k, v), "b h n d -> b n (h d)"))

    def _heads(self, x: Float[Tensor, "b n d"], weight: Float[Tensor, "o d"]) -> tuple[Tensor, ...]:
        parts = weight.shape[0] // weight.shape[1]
        made = F.linear(x, weight)
        return rearrange(made, "b n (p h d) -> p b h n d", p=parts, h=self.heads).unbind(0)


class CrossAttention(nn.Module):
    """Queries attend to tokens; (B, Q, dim), (B, N, dim) -> (B, Q, dim).

    There are few queries and many tokens, so the layers of keys and values are moved: of keys,
    q (W x) = (W' q) x, to the queries; of values, sum a (W x) = W (sum a x), to the weighted
    means. It is the same up to rounding, at a sixth of the work.
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
        batch, (_, of_v) = queries.shape[0], self._key_value()
        weights = rearrange(self.attention_maps(queries, tokens), "b h q n -> b (h q) n")
        seen = weights.to(tokens.dtype) @ tokens
        values = rearrange(seen, "b (h q) c -> h (b q) c", h=self.heads) @ of_v.mT
        return self.proj(rearrange(values, "h (b q) d -> b q (h d)", b=batch))

    def attention_maps(
        self, queries: Float[Tensor, "b q d"], tokens: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b h q n"]:
        """Return how much each head of each query attends to each token; they add up to 1."""
        batch, (of_k, _) = queries.shape[0], self._key_value()
        q = rearrange(self.q(queries), "b q (h d) -> h (b q) d", h=self.heads)
        asked = rearrange(q @ of_k, "h (b q) c -> b (h q) c", b=batch)
        weights = (asked @ tokens.mT * q.shape[-1] ** -0.5).softmax(-1)
        return rearrange(weights, "b (h q) n -> b h q n", h=self.heads)

    def _key_value(self) -> tuple[Tensor, Tensor]:
        of_k, of_v = rearrange(self.kv.weight, "(two h d) c -> two h d c", two=2, h=self.heads)
        return of_k, of_v
