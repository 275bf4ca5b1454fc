"""Names of torch-pointcloud's Point-MAE, as on its Hugging Face Hub pages.

torch-pointcloud builds its layers with PyTorch Geometric's MLP: linear layers are `lins.<n>` and
norms `norms.<n>.module`. The networks are those of the released Point-MAE.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

_MARKER = "encoder.local_mlp.lins.0.weight"
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"encoder\.local_mlp\.norms\.0\.module\.", "encoder.first_conv.1."),
        (r"encoder\.global_mlp\.norms\.0\.module\.", "encoder.second_conv.1."),
        (r"encoder\.local_mlp\.lins\.0\.", "encoder.first_conv.0."),
        (r"encoder\.local_mlp\.lins\.1\.", "encoder.first_conv.3."),
        (r"encoder\.global_mlp\.lins\.0\.", "encoder.second_conv.0."),
        (r"encoder\.global_mlp\.lins\.1\.", "encoder.second_conv.3."),
        (r"pos_embed\.lins\.0\.", "pos_embed.0."),
        (r"pos_embed\.lins\.1\.", "pos_embed.2."),
        (r"\.mlp\.lins\.0\.", ".mlp.fc1."),
        (r"\.mlp\.lins\.1\.", ".mlp.fc2."),
        (r"^increase_dim\.lins\.0\.", "increase_dim.0."),
        (r"^norm_f\.", "norm."),
    )
]
_HEAD = re.compile(r"^head\.(lins|norms)\.(\d+)\.(module\.)?")


def has_torch_pointcloud_names(state: Mapping[str, Tensor]) -> bool:
    """Tell whether weights have the names of torch-pointcloud's Point-MAE."""
    return any(name.endswith(_MARKER) for name in state)


def from_torch_pointcloud_names(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of torch-pointcloud's Point-MAE as in the released one.

    Raises ValueError for its part segmenter, whose head reads other features than this library's.
    """
    if any(name.startswith("propagation_0.") for name in state):
        raise ValueError(
            f"{path}: a part segmenter of Point-MAE (torch-pointcloud) cannot be loaded: its head "
            "reads other features than this library's; load the pretrained encoder instead"
        )
    return {_rename(name): tensor for name, tensor in state.items()}


def _rename(name: str) -> str:
    # Each linear layer of the head is followed by a norm, an activation and dropout.
    if match := _HEAD.match(name):
        number = 4 * int(match[2]) + (match[1] == "norms")
        return f"cls_head_finetune.{number}.{name[match.end() :]}"
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name, count=1)
    return name
