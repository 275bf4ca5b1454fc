"""Recognize weights of other published networks by the names of their parameters."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from recon.checkpoints.contents.containers import FROZEN_PARTS


class ForeignFamily(NamedTuple):
    """A published network whose weights this library does not compute."""

    name: str
    pattern: str
    """Regular expression of names that no other network has."""
    reason: str
    source: str
    """Where its own code is."""


_ADAPTER = "adds trained layers to the blocks of Point-MAE, ACT or ReCon"
_HIERARCHY = "merges its patches from one stage to the next"
FAMILIES = (
    ForeignFamily(
        "ReCon++", r"blocks\.(local|global)_blocks\.|(^|\.)global_query$",
        "has ordinary residuals, biases in its attention and a set of queries for each modality",
        "github.com/qizekun/ShapeLLM",
    ),
    ForeignFamily(
        "ULIP-2", r"(^|\.)open_clip_model\.",
        "reads colored points and aligns them with OpenCLIP's features",
        "github.com/salesforce/ULIP",
    ),
    ForeignFamily(
        "ULIP", r"(^|\.)pc_projection$",
        "aligns the features of another point encoder with those of images and text",
        "github.com/salesforce/ULIP",
    ),
    ForeignFamily(
        "Uni3D", r"(^|\.)(encoder2trans|trans2embed)\.",
        "passes colored patches through an image transformer", "github.com/baaivision/Uni3D",
    ),
    ForeignFamily(
        "OpenShape", r"(^|\.)ppat\.", "groups colored points by radius and has other blocks",
        "github.com/Colin97/OpenShape_code",
    ),
    ForeignFamily(
        "I2P-MAE", r"(^|\.)rec_head_2d\.", _HIERARCHY, "github.com/ZrrSkywalker/I2P-MAE",
    ),
    ForeignFamily(
        "Point-M2AE", r"(^|\.)(h_encoder\.|encoder_pos_embeds\.|h_decoder\.)", _HIERARCHY,
        "github.com/ZrrSkywalker/Point-M2AE",
    ),
    ForeignFamily(
        "PointGPT",
        r"(^|\.)(GPT_Transformer|generator_blocks)\.|(^|\.)blocks\.(sos$|layers\.\d+\.ln_1\.)",
        "orders its patches and predicts each from those before it",
        "github.com/CGuangyan-BIT/PointGPT",
    ),
    ForeignFamily(
        "PointMamba", r"(^|\.)layers\.\d+\.mixer\.", "has state-space blocks without attention",
        "github.com/LMD0311/PointMamba",
    ),
    ForeignFamily(
        "Point-BERT",
        r"(^|\.)(transformer_[qk]|dvae|dgcnn_1)\.|(^|(?<!ACT_encoder)\.)reduce_dim\.",
        "has a linear layer between patch embedding and blocks, and another head",
        "github.com/Julie-tang00/Point-BERT",
    ),
    ForeignFamily(
        "PCP-MAE", r"(^|\.)(mask_pos_token$|pred_pos_(proj|decoder)\.)",
        "embeds the sines and cosines of its centers", "github.com/aHapBean/PCP-MAE",
    ),
    ForeignFamily(
        "Point-FEMAE", r"(^|\.)blocks\.\d+\.cls(_norm)?\.", "adds local layers to its blocks",
        "github.com/zyh16143998882/AAAI24-PointFEMAE",
    ),
    ForeignFamily(
        "DAPT", r"(^|\.)(Adapter_MLP\.|tfts_(gamma|beta))", _ADAPTER, "github.com/LMD0311/DAPT",
    ),
    ForeignFamily(
        "PointGST", r"(^|\.)gft_adapter\.", _ADAPTER, "github.com/jerryfeng2003/PointGST",
    ),
    ForeignFamily(
        "PPT", r"(^|\.)prompt_((all|pos)_)?mlp\.", _ADAPTER, "github.com/zsc000722/PPT",
    ),
    ForeignFamily(
        "VPT-deep", r"(^|\.)cls_prompt_(pos_)?list\.", _ADAPTER,
        "github.com/zyh16143998882/ICCV23-IDPT",
    ),
    ForeignFamily(
        "IDPT", r"(^|\.)(blocks\.cls\.|prompt_pos$)", _ADAPTER,
        "github.com/zyh16143998882/ICCV23-IDPT",
    ),
    ForeignFamily(
        "a Point Transformer V3, such as Sonata", r"(^|\.)embedding\.stem\.",
        "computes sparse voxels of scenes", "github.com/Pointcept/Pointcept",
    ),
    ForeignFamily(
        "CLIP", r"(^|\.)visual\.(transformer|conv1|trunk|ln_pre)",
        "encodes images and text, not points: it is a teacher (teacher=clip)",
        "github.com/mlfoundations/open_clip",
    ),
)  # fmt: skip
"""Published networks, the more specific ones first."""
_PATTERNS = tuple((family, re.compile(family.pattern)) for family in FAMILIES)
OPENCLIP_WIDTH = 1280
"""Width of the features that ULIP-2 aligns points with."""


def recognize_family(
    names: Iterable[str], shapes: Mapping[str, Sequence[int]] | None = None
) -> ForeignFamily | None:
    """Return the published network that parameter names belong to, None for any other.

    `shapes` are those of the parameters, by name: some networks differ in them only.
    """
    listed, shapes = [name for name in names if not FROZEN_PARTS.search(name)], shapes or {}
    for family, pattern in _PATTERNS:
        if matches := [name for name in listed if pattern.search(name)]:
            is_ulip_2 = family.name == "ULIP" and shapes.get(matches[0], ())[-1:] == (
                OPENCLIP_WIDTH,
            )
            return _get_family("ULIP-2") if is_ulip_2 else family
    has_patches = any(name.endswith("encoder.first_conv.0.weight") for name in listed)
    inputs = [s[1] for n, s in shapes.items() if re.search(r"(^|\.)pos_embed\.0\.weight$", n)]
    return _get_family("PCP-MAE") if has_patches and any(width != 3 for width in inputs) else None


def _get_family(name: str) -> ForeignFamily:
    return next(family for family in FAMILIES if family.name == name)


def describe_foreign_family(family: ForeignFamily) -> str:
    """Return what is wrong with weights of another network, and what to do."""
    return (
        f"these are weights of {family.name}, which {family.reason}: this library does not compute "
        f"it; use weights of ReCon, Point-MAE or ACT, or its own code ({family.source})"
    )
