"""Augment images for image teachers."""

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2


class ImageAugmentation:
    """Augment an image with flips, crops and RandAugment, seeded per image [1].

    Maps a PIL image and a seed to a uint8 RGB tensor (3, size, size). The same seed gives the same
    result.

    [1] Qi et al., arXiv:2302.02318 (as released): resize, flip, RandomResizedCrop of 64 to 100 %,
    RandAugment(2, 10). Images stay RGB; the released code swaps red and blue.
    """

    def __init__(self, size: int = 224) -> None:
        bicubic = v2.InterpolationMode.BICUBIC
        self.transform = v2.Compose(
            [
                v2.RGB(),
                v2.Resize(round(size * 8 / 7), interpolation=bicubic),
                v2.RandomHorizontalFlip(),
                v2.RandomResizedCrop(size, scale=(0.64, 1.0), interpolation=bicubic),
                v2.RandAugment(num_ops=2, magnitude=10, interpolation=bicubic),
                v2.PILToTensor(),
            ]
        )

    def __call__(self, image: Image.Image, seed: int) -> UInt8[Tensor, "3 size size"]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.transform(image)
