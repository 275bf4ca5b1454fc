from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from recon.layers.patch_embed import FoldedPatchEmbed, PatchEmbed
from recon.ops.neighbors import gather_rows


def embed_by_definition(embed: PatchEmbed, patches: torch.Tensor) -> torch.Tensor:
    """Embed by convolutions, with the patch maximum concatenated to every point."""
    b, g, k, _ = patches.shape
    x = patches.reshape(b * g, k, 3).transpose(1, 2)

    def conv(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv1d(x, layer.weight.unsqueeze(-1), layer.bias)

    x = conv(embed.point_out, embed.point_norm(conv(embed.point_in, x)).relu())
    x = torch.cat([x.amax(2, keepdim=True).expand(-1, -1, k), x], 1)
    x = conv(embed.joint_out, embed.joint_norm(conv(embed.joint_in, x)).relu())
    return x.amax(2).view(b, g, -1)


def test_training_output_and_statistics_equal_the_definition() -> None:
    patches = torch.randn(2, 6, 9, 3)
    embed, reference = PatchEmbed(24), PatchEmbed(24)
    reference.load_state_dict(embed.state_dict())
    assert_close(embed(patches), embed_by_definition(reference, patches))
    for actual, expected in zip(embed.buffers(), reference.buffers(), strict=True):
        assert_close(actual, expected)


def gradients(module: nn.Module, tokens: torch.Tensor) -> list[torch.Tensor]:
    module.zero_grad()
    (tokens * torch.arange(24)).square().sum().backward()
    return [parameter.grad.clone() for parameter in module.parameters()]


def test_visible_tokens_equal_a_selection_of_all_tokens() -> None:
    patches, visible = torch.randn(2, 6, 9, 3).double(), torch.tensor([[0, 2, 5], [1, 3, 4]])
    embed, reference = PatchEmbed(24).double(), PatchEmbed(24).double()
    reference.load_state_dict(embed.state_dict())
    tokens, expected_tokens = embed(patches, visible), gather_rows(reference(patches), visible)
    assert_close(tokens, expected_tokens)
    for actual, expected in zip(
        gradients(embed, tokens), gradients(reference, expected_tokens), strict=True
    ):
        assert_close(actual, expected)
    for actual, expected in zip(embed.buffers(), reference.buffers(), strict=True):
        assert_close(actual, expected)
    embed.eval(), reference.eval()
    assert_close(embed(patches, visible), gather_rows(reference(patches), visible))


def test_statistics_by_moments_match_the_reference() -> None:
    patches = torch.randn(3, 6, 9, 3, dtype=torch.float64) + 1
    visible = torch.tensor([[4, 0], [1, 3], [5, 2]])
    embed = PatchEmbed(24).double()
    reference = deepcopy(embed)
    tokens, expected = embed(patches, visible), reference.embed_reference(patches, visible)
    assert_close(tokens.flatten(0, 1), expected)
    for a, b in zip(
        gradients(embed, tokens.flatten(0, 1)), gradients(reference, expected), strict=True
    ):
        assert_close(a, b, rtol=1e-9, atol=1e-9)
    for a, b in zip(embed.buffers(), reference.buffers(), strict=True):
        assert_close(a, b)


def test_other_batch_norms_are_called() -> None:
    class CountingBatchNorm(nn.BatchNorm1d):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            CountingBatchNorm.calls += 1
            return super().forward(x)

    embed, patches = PatchEmbed(24), torch.randn(2, 6, 9, 3)
    expected = deepcopy(embed)(patches)
    embed.joint_norm = CountingBatchNorm(512)
    assert_close(embed(patches), expected)
    assert CountingBatchNorm.calls == 1


def test_embed_visible_only_uses_statistics_of_visible_patches() -> None:
    patches, visible = torch.randn(2, 6, 9, 3), torch.tensor([[0, 2, 5], [1, 3, 4]])
    visible_only, full = PatchEmbed(24, embed_visible_only=True), PatchEmbed(24)
    full.load_state_dict(visible_only.state_dict())
    visible_patches = gather_rows(patches.flatten(2), visible).unflatten(2, (-1, 3))
    assert_close(visible_only(patches, visible), full(visible_patches))
    assert_close(visible_only.joint_norm.running_var, full.joint_norm.running_var)


def test_batch_statistics_of_many_points_are_accurate() -> None:
    embed = PatchEmbed(24)
    patches = torch.randn(8, 64, 128, 3) + 3
    exact = deepcopy(embed).double()(patches.double())
    assert (embed(patches) - exact).abs().max() < 5e-6
    mean = 0.1 * embed.point_in(patches.reshape(-1, 3)).double().mean(0)
    assert (embed.point_norm.running_mean - mean).abs().max() < 2e-6 * mean.abs().max()


@pytest.mark.parametrize(("bias", "autocast"), [(100, False), (30, True)])
def test_batch_statistics_far_from_zero_are_as_accurate_as_the_reference(
    bias: float, autocast: bool
) -> None:
    embed, patches = PatchEmbed(24), torch.randn(4, 16, 32, 3)
    nn.init.constant_(embed.point_norm.bias, bias)
    expected = deepcopy(embed).double()(patches.double()).flatten(0, 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        reference = deepcopy(embed).embed_reference(patches, None)
        tokens = embed(patches).flatten(0, 1)
    assert (tokens - expected).abs().max() < 2 * (reference - expected).abs().max()


def test_embedding_is_permutation_invariant() -> None:
    embed, patches = PatchEmbed(24).eval(), torch.randn(2, 6, 9, 3)
    assert_close(embed(patches), embed(patches[:, :, torch.randperm(9)]))


def test_weights_are_initialized_from_a_truncated_normal() -> None:
    weight = PatchEmbed(384).joint_in.weight
    assert abs(weight.std().item() - 0.02) < 1e-3
    assert abs(weight.mean().item()) < 1e-3
    assert PatchEmbed(384).joint_in.bias.abs().max() == 0


def test_folded_embedding_matches_up_to_rounding() -> None:
    embed = PatchEmbed(24)
    for _ in range(3):
        embed(torch.randn(4, 8, 9, 3) * 2 + 1)
    embed.eval()
    patches, visible = torch.randn(2, 7, 9, 3), torch.tensor([[0, 2], [1, 3]])
    for chunk_size in (3, 64):
        folded = FoldedPatchEmbed(embed, chunk_size=chunk_size)
        assert_close(folded(patches), embed(patches), rtol=1e-5, atol=1e-6)
        assert_close(folded(patches, visible), embed(patches, visible), rtol=1e-5, atol=1e-6)
    assert not any("norm" in name for name, _ in folded.named_modules())
