"""A pretrained encoder with a head on every point: clouds in, class scores of points out."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from recon.layers.grouping import PatchGrouper
from recon.layers.propagation import FeaturePropagation, batch_norm_relu, max_mean_pool
from recon.models.encoder import Encoder
from recon.ops.linear import pointwise_linear

OBJECT_EMBED_DIM = 64
AXES = "xyz"
DEFAULT_WIDTHS = (1024, 512, 256)


def default_out_indices(depth: int) -> tuple[int, ...]:
    """Return the blocks whose tokens are used: after one third, two thirds and all of them."""
    return tuple(dict.fromkeys(max(1, depth * part // 3) - 1 for part in (1, 2, 3)))


class ObjectEmbed(nn.Module):
    """Embed the class of the object that a cloud shows; (B,) -> (B, 64)."""

    def __init__(self, num_objects: int) -> None:
        super().__init__()
        self.num_objects = num_objects
        self.project = nn.Linear(num_objects, OBJECT_EMBED_DIM, bias=False)
        self.norm = nn.BatchNorm1d(OBJECT_EMBED_DIM)

    def forward(self, label: Int[Tensor, " b"]) -> Float[Tensor, "b e"]:
        known = self.project(F.one_hot(label, self.num_objects).to(self.project.weight.dtype))
        return F.leaky_relu(self.norm(known), 0.2)


class PointHead(nn.Module):
    """Score each point from its own feature and from what is the same for its whole cloud.

    Shapes: points (B, N, P), cloud (B, E) -> logits (B, N, classes). The cloud's columns of the
    first layer are multiplied once a cloud, not once a point.
    """

    def __init__(
        self,
        point_dim: int,
        cloud_dim: int,
        num_classes: int,
        *,
        widths: Sequence[int],
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        first, second = widths
        self.joint_in, self.joint_norm = (
            nn.Linear(point_dim + cloud_dim, first),
            nn.BatchNorm1d(first),
        )
        self.middle, self.middle_norm = nn.Linear(first, second), nn.BatchNorm1d(second)
        self.out = nn.Linear(second, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.point = point_dim

    def forward(
        self, points: Float[Tensor, "b n p"], cloud: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b n c"]:
        own, shared = self.joint_in.weight.split([self.point, cloud.shape[-1]], dim=1)
        of_cloud = F.linear(cloud, shared, self.joint_in.bias).unsqueeze(1)
        x = self.dropout(
            batch_norm_relu(pointwise_linear(points, own).add_(of_cloud), self.joint_norm)
        )
        x = pointwise_linear(x, self.middle.weight, self.middle.bias)
        return self.out(batch_norm_relu(x, self.middle_norm))


class Segmenter(nn.Module):
    """Scores of classes for every point, of an object's parts or of a scene [1].

    Shapes: channels (B, N, C), the first three the coordinates, and with `objects` the class of
    each cloud (B,) -> log-probabilities (B, N, classes). The encoder sees coordinates alone;
    colours and what else there is join at the points. Tokens after one third, two thirds and all of
    the blocks are used; the queries' maximum only with `objects`. No gradient is stopped.

    `hidden` and `widths` are those of the layers on points: of the propagation, 4 dim by default,
    of the points' features, and of the two layers that score them; most of the time goes there.
    `up` is the axis that points upwards in the input; the encoder, pretrained on shapes that stand
    on y, sees it as y. `names` are the classes of points, `object_names` those of clouds, `parts`
    which classes each of them has; all are empty where they are unknown, as in released files.

    [1] Qi et al., arXiv:2302.02318, section 4.1 (part segmentation, as released).
    """

    def __init__(
        self,
        grouper: PatchGrouper,
        encoder: Encoder,
        num_classes: int,
        *,
        num_objects: int | None = None,
        channels: int = 3,
        hidden: int | None = None,
        widths: Sequence[int] = DEFAULT_WIDTHS,
        up: str = "y",
        class_names: Sequence[str] = (),
        object_names: Sequence[str] = (),
        parts: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if num_objects is not None and not encoder.modalities:
            raise ValueError("part segmentation reads the queries, and this encoder has none")
        self.grouper, self.encoder = grouper, encoder
        if up not in AXES:
            raise ValueError(f"up must be x, y or z, got {up!r}")
        self.num_classes, self.num_objects, self.channels, self.up = (
            num_classes,
            num_objects,
            channels,
            up,
        )
        self.class_names, self.object_names = tuple(class_names), tuple(object_names)
        self.parts = dict(parts or {})
        encoder.stop_gradient = False
        self.out_indices = default_out_indices(len(encoder.blocks))
        levels = len(self.out_indices) * encoder.dim
        point, *scoring = widths
        self.propagate = FeaturePropagation(
            levels, channels=channels, hidden=hidden or 4 * encoder.dim, width=point
        )
        self.object_embed = None if num_objects is None else ObjectEmbed(num_objects)
        cloud = 2 * levels + (0 if num_objects is None else encoder.dim + OBJECT_EMBED_DIM)
        self.point_head = PointHead(point, cloud, num_classes, widths=scoring)

    def forward(
        self, channels: Num[Tensor, "b n c"], label: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b n classes"]:
        if channels.shape[-1] != self.channels:
            raise ValueError(
                f"points have {channels.shape[-1]} channels, the network reads {self.channels}: 3 "
                "are the coordinates, 6 colours too, 9 the place in the room"
            )
        channels = self._upright(channels.to(next(self.parameters()).dtype))
        patches = self.grouper(channels[..., :3].contiguous())
        levels = self.encoder.forward_intermediates(patches, self.out_indices)
        tokens = torch.cat(levels.tokens, -1)
        cloud = [max_mean_pool(tokens)]
        if self.object_embed is not None:
            assert levels.queries is not None
            cloud += [levels.queries.amax(1), self.object_embed(self._known(label))]
        points = self.propagate(tokens, levels.centers, channels)
        return self.point_head(points, torch.cat(cloud, -1)).log_softmax(-1)

    def _upright(self, channels: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Rename the axes of the coordinates, in their cyclic order, so that y points upwards."""
        turn = 1 - AXES.index(self.up)
        return torch.cat([channels[..., :3].roll(turn, -1), channels[..., 3:]], -1)

    def _known(self, label: Int[Tensor, " b"] | None) -> Int[Tensor, " b"]:
        if label is None:
            raise ValueError("the network needs the class of the object that each cloud shows")
        exporting = torch.compiler.is_compiling()  # what the labels are is not known then
        if not exporting and (int(label.min()) < 0 or int(label.max()) >= (self.num_objects or 0)):
            raise ValueError(
                f"objects are numbered 0 to {(self.num_objects or 0) - 1}, got {label}"
            )
        return label
