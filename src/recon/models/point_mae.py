"""Point-MAE and ACT: networks on a standard transformer, for their released checkpoints."""

from jaxtyping import Bool
from torch import Tensor

from recon.layers.grouping import Patches, PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import Encoding
from recon.models.recon import PretrainingNetwork, PretrainingOutput, Projections, split_patches
from recon.models.two_tower import Tower


class PointMAE(PretrainingNetwork):
    """A generative student on a standard transformer [1].

    Shapes: points (B, N, 3), mask (B, G) True where masked -> `PretrainingOutput`. It differs from
    the generative student of `ReCon` in the residual connections; the weights have equal shapes.

    [1] Pang et al., arXiv:2203.06604.
    """

    def __init__(self, grouper: PatchGrouper, tower: Tower, decoder: Decoder) -> None:
        super().__init__(grouper, Projections(tower.dim, {}), tower.modalities)
        self.tower, self.decoder = tower, decoder

    def encode_patches(self, patches: Patches) -> Encoding:
        return self.tower(patches)

    def forward_patches(
        self, patches: Patches, mask: Bool[Tensor, "b g"] | None
    ) -> PretrainingOutput:
        visible, masked = split_patches(mask, patches)
        predicted = self.decoder(self.tower(patches, visible), masked.centers)
        return PretrainingOutput(predicted, masked.points.flatten(0, 1), {})


class ACT(PretrainingNetwork):
    """A standard transformer with a class token, trained to predict autoencoder features [1].

    Shapes: points (B, N, 3), mask (B, G) True where masked, or None -> `PretrainingOutput` without
    points: its decoder predicts features of a teacher that this library does not have.

    [1] Dong et al., arXiv:2212.08320.
    """

    def __init__(self, grouper: PatchGrouper, tower: Tower) -> None:
        super().__init__(grouper, Projections(tower.dim, {}), tower.modalities)
        self.tower = tower

    def encode_patches(self, patches: Patches) -> Encoding:
        return self.tower(patches)

    def forward_patches(
        self, patches: Patches, mask: Bool[Tensor, "b g"] | None
    ) -> PretrainingOutput:
        empty = patches.points.flatten(0, 1)[:0]
        return PretrainingOutput(empty, empty, {})
