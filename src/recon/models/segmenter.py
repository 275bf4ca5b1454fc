"""Segmenter: an encoder, feature propagation to all points, and a head on each point."""

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
    """Return the indices of the blocks at one third, two thirds and the end of the encoder."""
    return tuple(dict.fromkeys(max(1, depth * part // 3) - 1 for part in (1, 2, 3)))


class ObjectEmbed(nn.Module):
    """Embed the object class of each cloud; (B,) -> (B, 64)."""

    def __init__(self, num_objects: int) -> None:
        super().__init__()
        self.num_objects = num_objects
        self.project = nn.Linear(num_objects, OBJECT_EMBED_DIM, bias=False)
        self.norm = nn.BatchNorm1d(OBJECT_EMBED_DIM)

    def forward(self, label: Int[Tensor, " b"]) -> Float[Tensor, "b e"]:
        embedded = self.project(F.one_hot(label, self.num_objects).to(self.project.weight.dtype))
        return F.leaky_relu(self.norm(embedded), 0.2)


class PointHead(nn.Module):
    """Classify each point from its own feature and the feature of its cloud.

    Shapes: points (B, N, P), cloud (B, E) -> logits (B, N, classes). The first layer is applied to
    the cloud feature once per cloud, not once per point.
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
        self.point_dim = point_dim

    def forward(
        self, points: Float[Tensor, "b n p"], cloud: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b n c"]:
        point_weight, cloud_weight = self.joint_in.weight.split(
            [self.point_dim, cloud.shape[-1]], dim=1
        )
        cloud_share = F.linear(cloud, cloud_weight, self.joint_in.bias).unsqueeze(1)
        x = self.dropout(
            batch_norm_relu(
                pointwise_linear(points, point_weight).add_(cloud_share), self.joint_norm
            )
        )
        x = pointwise_linear(x, self.middle.weight, self.middle.bias)
        return self.out(batch_norm_relu(x, self.middle_norm))


class Segmenter(nn.Module):
    """Classify every point, for part segmentation of objects or for semantic segmentation [1].

    Shapes: channels (B, N, C), of which the first three are the coordinates, and with `num_objects`
    the object class of each cloud (B,) -> log-probabilities (B, N, classes). The encoder reads the
    coordinates only; colors and other channels enter at the points. It uses the tokens after
    one third, two thirds and all of the blocks, and with `num_objects` the maximum over the
    queries. There is no stop-gradient.

    `hidden` is the hidden width of the feature propagation, 4 dim by default. `widths` are the
    widths of the point features and of the two hidden layers of the head. These layers take most of
    the time. `up` is the up axis of the input; it is turned to y, the up axis of the pretraining
    data. `class_names` are the classes of points, `object_names` those of clouds, and `parts` maps
    object names to their point classes; all are empty if unknown, as in released files.

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
            raise ValueError(
                "part segmentation needs an encoder with queries, and this encoder has none"
            )
        self.grouper, self.encoder = grouper, encoder
        if up not in [*AXES, *AXES.upper()]:
            raise ValueError(f"up must be x, y or z, got {up!r}")
        self.num_classes, self.num_objects, self.channels, self.up = (
            num_classes,
            num_objects,
            channels,
            up.lower(),
        )
        self.class_names, self.object_names = tuple(class_names), tuple(object_names)
        self.parts = dict(parts or {})
        encoder.stop_gradient = False
        self.out_indices = default_out_indices(len(encoder.blocks))
        token_dim = len(self.out_indices) * encoder.dim
        point_dim, *head_widths = widths
        self.propagate = FeaturePropagation(
            token_dim, channels=channels, hidden=hidden or 4 * encoder.dim, width=point_dim
        )
        self.object_embed = None if num_objects is None else ObjectEmbed(num_objects)
        cloud_dim = 2 * token_dim + (0 if num_objects is None else encoder.dim + OBJECT_EMBED_DIM)
        self.point_head = PointHead(point_dim, cloud_dim, num_classes, widths=head_widths)

    def forward(
        self, channels: Num[Tensor, "b n c"], label: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b n classes"]:
        if channels.shape[-1] != self.channels:
            raise ValueError(
                f"points have {channels.shape[-1]} channels, but the network expects "
                f"{self.channels}: 3 are xyz, 6 add rgb, 9 add the normalized room position"
            )
        channels = self._turn_y_up(channels.to(next(self.parameters()).dtype))
        patches = self.grouper(channels[..., :3].contiguous())
        outputs = self.encoder.forward_intermediates(patches, self.out_indices)
        tokens = torch.cat(outputs.tokens, -1)
        cloud = [max_mean_pool(tokens)]
        if self.object_embed is not None:
            assert outputs.queries is not None
            cloud += [outputs.queries.amax(1), self.object_embed(self._check_labels(label))]
        points = self.propagate(tokens, outputs.centers, channels)
        return self.point_head(points, torch.cat(cloud, -1)).log_softmax(-1)

    def _turn_y_up(self, channels: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Permute the axes cyclically so that y is up."""
        shift = 1 - AXES.index(self.up)
        return torch.cat([channels[..., :3].roll(shift, -1), channels[..., 3:]], -1)

    def _check_labels(self, label: Int[Tensor, " b"] | None) -> Int[Tensor, " b"]:
        """Return the object classes; raise ValueError if they are missing or out of range."""
        if label is None:
            raise ValueError("the network needs the object class of each cloud: pass `label`")
        compiling = torch.compiler.is_compiling()  # tracing does not know the values of the labels
        if not compiling and (int(label.min()) < 0 or int(label.max()) >= (self.num_objects or 0)):
            raise ValueError(
                f"object classes must be in 0 to {(self.num_objects or 0) - 1}, got {label}"
            )
        return label
