import torch
from torch.testing import assert_close

from recon.layers.blocks import Block, LocalBlock, QueryBlock


def test_local_block_residual_is_the_normalized_input() -> None:
    block, x = LocalBlock(24, heads=3), torch.randn(2, 5, 24)
    context = block.norm1(x)
    hidden = block.norm2(context + block.attn(context))
    out = block(x)
    assert_close(out.tokens, hidden + block.mlp(hidden))
    assert_close(out.context, context)


def test_query_block_residual_is_the_normalized_input() -> None:
    block, q, x = QueryBlock(24, heads=3), torch.randn(2, 3, 24), torch.randn(2, 5, 24)
    normalized = block.norm1(q)
    hidden = block.norm2(normalized + block.attn(normalized, x))
    assert_close(block(q, x), hidden + block.mlp(hidden))


def test_decoder_block_is_pre_norm() -> None:
    block, x = Block(24, heads=3), torch.randn(2, 5, 24)
    hidden = x + block.attn(block.norm1(x))
    assert_close(block(x), hidden + block.mlp(block.norm2(hidden)))
    assert_close(block(x, num_last=2), block(x)[:, -2:])


def test_gelu_is_exact() -> None:
    mlp = LocalBlock(24, heads=3).mlp
    x = torch.randn(4, 24)
    exact = 0.5 * mlp.fc1(x) * (1 + torch.erf(mlp.fc1(x) / 2**0.5))
    assert_close(mlp(x), mlp.fc2(exact))


def test_stochastic_depth_drops_whole_samples_in_training_only() -> None:
    block, x = Block(24, heads=3, drop_path=0.5), torch.randn(64, 5, 24)
    assert_close(block.eval()(x), block.eval()(x))
    with torch.no_grad():
        block.mlp.fc2.weight.zero_()
        block.mlp.fc2.bias.zero_()
    unchanged = (block.train()(x) == x).flatten(1)
    assert (unchanged.all(1) | ~unchanged.any(1)).all()
    assert 10 < unchanged.all(1).sum() < 54
