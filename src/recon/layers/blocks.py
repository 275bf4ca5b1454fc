"""Transformer blocks: the pre-norm block of the decoder, and the two halves of a ReCon block."""

from typing import NamedTuple

from jaxtyping import Float
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from recon.layers.attention import CrossAttention, SelfAttention

MLP_RATIO = 4


class _Block(nn.Module):
    """The parts of every block: two norms, attention, an MLP and stochastic depth."""

    def __init__(self, dim: int, attn: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = attn, Mlp(dim, MLP_RATIO * dim)
        self.drop_path = DropPath(drop_path)


class Block(_Block):
    """Standard pre-norm transformer block; (B, N, dim) -> (B, N, dim).

    With `num_last`, only the last tokens are computed: (B, N, dim) -> (B, num_last, dim).
    """

    def __init__(self, dim: int, *, heads: int, drop_path: float = 0.0) -> None:
        super().__init__(dim, SelfAttention(dim, heads=heads), drop_path)

    def forward(
        self, x: Float[Tensor, "b n d"], num_last: int | None = None
    ) -> Float[Tensor, "b m d"]:
        residual = x if num_last is None else x[:, -num_last:]
        x = residual + self.drop_path(self.attn(self.norm1(x), num_last))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class LocalOutput(NamedTuple):
    """Outputs of the local half of a ReCon block."""

    tokens: Float[Tensor, "b n d"]
    context: Float[Tensor, "b n d"]
    """The normalized input of the self-attention; the queries attend to it."""


class LocalBlock(_Block):
    """Local half of a ReCon block: patch tokens attend to each other [1].

    Shapes: (B, N, dim) -> tokens and context (B, N, dim). The residual is the normalized input:
    x = LN(x); x = x + f(x). With the standard pre-norm residual, the released weights give
    other features.

    [1] Qi et al., arXiv:2302.02318, section 3.
    """

    def __init__(self, dim: int, *, heads: int, drop_path: float = 0.0) -> None:
        super().__init__(dim, SelfAttention(dim, heads=heads), drop_path)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> LocalOutput:
        context = self.norm1(tokens)
        x = self.norm2(context + self.drop_path(self.attn(context)))
        return LocalOutput(x + self.drop_path(self.mlp(x)), context)


class QueryBlock(_Block):
    """Global half of a ReCon block: queries attend to the patch tokens, not to each other [1].

    Shapes: queries (B, Q, dim), context (B, N, dim) -> (B, Q, dim). The residual is the
    normalized input, as in `LocalBlock`.

    [1] Qi et al., arXiv:2302.02318, section 3.
    """

    def __init__(self, dim: int, *, heads: int, drop_path: float = 0.0) -> None:
        super().__init__(dim, CrossAttention(dim, heads=heads), drop_path)

    def forward(
        self, queries: Float[Tensor, "b q d"], context: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b q d"]:
        x = self.norm1(queries)
        x = self.norm2(x + self.drop_path(self.attn(x, context)))
        return x + self.drop_path(self.mlp(x))
