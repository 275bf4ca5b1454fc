import torch
from torch.testing import assert_close

from recon.layers.grouping import PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import Encoder
from recon.models.recon import Projections, ReCon
from recon.ops.masking import random_mask


def recon(again: bool) -> ReCon:
    torch.manual_seed(0)
    encoder = Encoder(
        24, depth=3, heads=3, patch_widths=(8, 16, 16), drop_path=0.5, checkpoint_activations=again
    )
    decoder = Decoder(
        24, depth=2, heads=3, group_size=8, drop_path=0.5, checkpoint_activations=again
    )
    return ReCon(PatchGrouper(10, 8), encoder, decoder, Projections(24, {"image": 5}))


def step(model: ReCon) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Return the loss, the gradients, and how many numbers were kept for them."""
    torch.manual_seed(1)
    points = torch.randn(4, 60, 3)
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        out = model(points, random_mask(points[:, :10], 0.6))
    loss = (out.predicted - out.target).square().mean() + out.projected_queries[
        "image"
    ].square().mean()
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None], kept


def test_numbers_stay_and_less_is_kept() -> None:
    plain, again = recon(False), recon(True)
    loss, gradients, kept = step(plain)
    same_loss, same_gradients, fewer = step(again)
    assert torch.equal(loss, same_loss)
    for ours, theirs in zip(same_gradients, gradients, strict=True):
        assert_close(ours, theirs)
    for ours, theirs in zip(again.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs)  # running statistics moved once
    assert fewer < 0.5 * kept
