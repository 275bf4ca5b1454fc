"""Classifier: an encoder and a classification head."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from recon.layers.grouping import Patches, PatchGrouper
from recon.models.encoder import Encoder, Encoding, init_linear
from recon.models.heads import mlp_head
from recon.models.two_tower import Tower, TwoTowerEncoder

HeadFactory = Callable[[int, int], nn.Sequential]


def pool_classifier_features(encoding: Encoding) -> Float[Tensor, "b e"]:
    """Concatenate all queries and the maximum over the patch tokens; 3 queries give (B, 4 dim)."""
    return torch.cat([*encoding.queries.values(), encoding.tokens.amax(1)], -1)


class Classifier(nn.Module):
    """Classify clouds from the queries and the patch tokens [1].

    Shapes: points (B, N, 3) -> logits (B, classes). There is no stop-gradient: the loss also
    reaches the patch tokens through the queries. The `cls` token is initialized to 0. `class_names`
    are in the order of the logits; they are empty if unknown, as in released files.

    [1] Qi et al., arXiv:2302.02318, section 4.1.
    """

    def __init__(
        self,
        grouper: PatchGrouper,
        encoder: Encoder | Tower | TwoTowerEncoder,
        num_classes: int,
        *,
        head: HeadFactory = mlp_head,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.grouper, self.encoder = grouper, encoder
        self.num_classes, self.class_names = num_classes, tuple(class_names)
        if isinstance(encoder, Encoder):
            encoder.stop_gradient = False
            if encoder.queries is not None and "cls" in encoder.queries.tokens:
                nn.init.zeros_(encoder.queries.tokens["cls"])
        features = (len(encoder.modalities) + 1) * encoder.dim
        self.head = head(features, num_classes).apply(init_linear)

    def encode(self, points: Num[Tensor, "b n 3"]) -> Encoding:
        """Encode clouds without a mask; (B, N, 3) -> `Encoding`."""
        return self.encode_patches(self.grouper(points.to(next(self.parameters()).dtype)))

    def encode_patches(self, patches: Patches) -> Encoding:
        """Encode patches without a mask."""
        return self.encoder(patches)

    def forward(self, points: Num[Tensor, "b n 3"]) -> Float[Tensor, "b classes"]:
        return self.head(pool_classifier_features(self.encode(points)))
