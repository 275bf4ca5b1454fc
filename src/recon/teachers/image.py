"""Image teachers: any timm network, or the image tower of any open_clip model."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.layers import to_2tuple
from torch import Tensor, nn

from recon.teachers.base import LiveTeacher, load_teacher_network
from recon.teachers.clip import create_clip

WEIGHTS_OPTION = "teacher.image.weights"


class ImageTeacher(LiveTeacher):
    """Base class of frozen image encoders; key `image`, RGB bytes (B, 3, H, W), to (B, dim).

    Pixels are normalized by the teacher's own statistics; the released code uses those of ImageNet
    for every teacher. `size` is the height and width that the network takes, None for any size.

    Raises ValueError for images of another size.
    """

    keys = ("image",)
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        dim: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(network, dim)
        self.size = size
        for key, values in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def encode(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        images = batch["image"]
        if self.size and images.shape[2:] != self.size:
            raise ValueError(
                f"the image teacher takes images of {self.size[0]} x {self.size[1]} pixels, "
                f"got {images.shape[2]} x {images.shape[3]}: set data.augment_image.size"
            )
        return self.encode_images((images / 255 - self.mean) / self.std)

    @abstractmethod
    def encode_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]:
        """Encode normalized images."""


class TimmImageTeacher(ImageTeacher):
    """A timm image classifier without its head: pooled features after the final norm.

    `name` is any timm model name, with its tag. Weights are downloaded unless `weights` is a local
    file or `pretrained` is False.

    Raises ValueError for an unknown name or a `dim` that is not the model's, and OSError if the
    weights are unavailable.
    """

    def __init__(
        self, name: str, dim: int, *, weights: str | None = None, pretrained: bool = True
    ) -> None:
        if not timm.is_model(name):
            raise ValueError(f"timm has no model {name!r}: see timm.list_models()")
        if weights is not None and not Path(weights).is_file():
            raise FileNotFoundError(f"{weights}: no such weights file of a teacher")
        overlay = {"file": weights} if weights else None
        network = load_teacher_network(
            name,
            weights,
            lambda: timm.create_model(
                name, pretrained=pretrained, pretrained_cfg_overlay=overlay, num_classes=0
            ),
            option=WEIGHTS_OPTION,
            needs_hub=pretrained and weights is None,
        )
        config = timm.data.resolve_model_data_config(network)
        channels, height, width = config["input_size"]
        size = (height, width) if network.pretrained_cfg.get("fixed_input_size") else None
        super().__init__(network, dim, mean=config["mean"], std=config["std"], size=size)
        with torch.no_grad():
            self.check_dim(name, self.encode_images(torch.zeros(1, channels, height, width)))

    def encode_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]:
        return self.network(images)


class OpenClipImageTeacher(ImageTeacher):
    """The image tower of an open_clip model: projected features, not normalized.

    `name` is any open_clip model name. `weights` is a pretraining tag, which is downloaded, or a
    local file; None leaves the tower untrained.

    Raises ValueError for an unknown name or a `dim` that is not the model's, and OSError if the
    weights are unavailable.
    """

    def __init__(self, name: str, dim: int, *, weights: str | None = "openai") -> None:
        tower = create_clip(name, weights, option=WEIGHTS_OPTION).visual
        height, width = to_2tuple(tower.image_size)
        super().__init__(
            tower, dim, mean=tower.image_mean, std=tower.image_std, size=(height, width)
        )
        with torch.no_grad():
            self.check_dim(name, self.encode_images(torch.zeros(1, 3, height, width)))

    def encode_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b dim"]:
        return self.network(images)
