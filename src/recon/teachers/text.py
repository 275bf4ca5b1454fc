"""Text teachers: the text tower of any model of open_clip."""

from collections.abc import Mapping
from typing import Any

import open_clip
from jaxtyping import Float
from torch import Tensor, nn

from recon.teachers.base import LiveTeacher
from recon.teachers.clip import create_clip


class OpenClipTextTeacher(LiveTeacher):
    """The text tower of a model of open_clip: projected features, not normalised.

    Sentences under the key `text` -> (B, dim). `name` is any that open_clip knows. `weights` is a
    pretraining tag, downloaded, or a local file; None leaves the tower untrained.

    Raises ValueError for an unknown name or a `dim` that is not the model's, and OSError where
    weights cannot be had.
    """

    keys = ("text",)

    def __init__(self, name: str, dim: int, *, weights: str | None = "openai") -> None:
        model = create_clip(name, weights)
        model.visual = nn.Identity()  # its memory; only the text tower is asked
        super().__init__(model, dim)
        self.about = f"open_clip {name}, weights {weights}"
        self.tokenizer = open_clip.get_tokenizer(name)
        self.check_dim(name, self({"text": ["a point cloud"]}))

    def __str__(self) -> str:
        return self.about

    def encode(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        device = next(self.network.parameters()).device
        return self.network.encode_text(self.tokenizer(list(batch["text"])).to(device))
