"""Text teachers: the text tower of any open_clip model."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from recon.teachers.base import LiveTeacher
from recon.teachers.clip import create_clip, load_tokenizer

WEIGHTS_OPTION = "teacher.text.weights"


class OpenClipTextTeacher(LiveTeacher):
    """The text tower of an open_clip model: projected features, not normalized.

    Key `text`, B sentences, to (B, dim). `name` is any open_clip model name. `weights` is a
    pretraining tag, which is downloaded, or a local file; None leaves the tower untrained.

    Raises ValueError for an unknown name or a `dim` that is not the model's, and OSError if the
    weights are unavailable.
    """

    keys = ("text",)

    def __init__(self, name: str, dim: int, *, weights: str | None = "openai") -> None:
        model = create_clip(name, weights, option=WEIGHTS_OPTION)
        model.visual = nn.Identity()  # frees the memory of the unused image tower
        super().__init__(model, dim)
        self.description = f"open_clip {name}, weights {weights}"
        self.tokenizer = load_tokenizer(name, option=WEIGHTS_OPTION)
        self.check_dim(name, self({"text": ["a point cloud"]}))

    def __str__(self) -> str:
        return self.description

    def encode(self, batch: Mapping[str, Any]) -> Float[Tensor, "b dim"]:
        device = next(self.network.parameters()).device
        return self.network.encode_text(self.tokenizer(list(batch["text"])).to(device))
