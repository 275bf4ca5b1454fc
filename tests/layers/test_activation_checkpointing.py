import torch
from torch.testing import assert_close

from recon.layers.grouping import PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from recon.ops.masking import random_mask


def build_recon(enabled: bool) -> ReCon:
    torch.manual_seed(0)
    encoder = Encoder(
        24,
        depth=3,
        heads=3,
        patch_widths=(8, 16, 16),
        drop_path=0.5,
        checkpoint_activations=enabled,
    )
    decoder = Decoder(
        24, depth=2, heads=3, group_size=8, drop_path=0.5, checkpoint_activations=enabled
    )
    return ReCon(PatchGrouper(10, 8), encoder, decoder, Projections(24, {"image": 5}))


def step(model: ReCon) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Return the loss, the gradients, and the number of elements saved for the backward pass."""
    torch.manual_seed(1)
    points = torch.randn(4, 60, 3)
    num_saved = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal num_saved
        num_saved += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        out = model(points, random_mask(points[:, :10], 0.6))
    loss = (out.predicted - out.target).square().mean() + out.projected_queries[
        "image"
    ].square().mean()
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None], num_saved


def test_checkpointing_keeps_values_and_saves_memory() -> None:
    plain, checkpointed = build_recon(False), build_recon(True)
    loss, gradients, num_saved = step(plain)
    same_loss, same_gradients, num_saved_checkpointed = step(checkpointed)
    assert torch.equal(loss, same_loss)
    for actual, expected in zip(same_gradients, gradients, strict=True):
        assert_close(actual, expected)
    for actual, expected in zip(checkpointed.buffers(), plain.buffers(), strict=True):
        assert torch.equal(actual, expected)  # running statistics were updated once
    assert num_saved_checkpointed < 0.5 * num_saved
