"""Students on an ordinary transformer, as Point-MAE and ACT released theirs."""

from jaxtyping import Bool
from torch import Tensor

from recon.layers.grouping import Patches, PatchGrouper
from recon.models.decoder import Decoder
from recon.models.encoder import Encoding
from recon.models.recon import PretrainingNetwork, PretrainingOutput, Projections, split_patches
from recon.models.two_tower import Tower


class PointMAE(PretrainingNetwork):
    """A generative student on an ordinary transformer [1].

    Shapes: points (B, N, 3), mask (B, G) True where hidden -> `Reconstruction`. It is not the
    generative student of `ReCon`: weights of that shape mean another residual there.

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
        visible, hidden = split_patches(mask, patches)
        predicted = self.decoder(self.tower(patches, visible), hidden.centers)
        return PretrainingOutput(predicted, hidden.points.flatten(0, 1), {})


class ACT(PretrainingNetwork):
    """An ordinary transformer with a class token, which learned from an autoencoder [1].

    Shapes: points (B, N, 3), mask (B, G) True where hidden, None to see all -> `Reconstruction`
    without points: what its decoder predicted are features of a teacher that is not here.

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
        nothing = patches.points.flatten(0, 1)[:0]
        return PretrainingOutput(nothing, nothing, {})
