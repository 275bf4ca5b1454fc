"""Convert parameter names between this library and released ReCon, Point-MAE and ACT weights."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor


def _tower_pairs(official: str, prefix: str) -> list[tuple[str, str]]:
    return [
        (f"{official}encoder.first_conv.0.", f"{prefix}.embed.point_in."),
        (f"{official}encoder.first_conv.1.", f"{prefix}.embed.point_norm."),
        (f"{official}encoder.first_conv.3.", f"{prefix}.embed.point_out."),
        (f"{official}encoder.second_conv.0.", f"{prefix}.embed.joint_in."),
        (f"{official}encoder.second_conv.1.", f"{prefix}.embed.joint_norm."),
        (f"{official}encoder.second_conv.3.", f"{prefix}.embed.joint_out."),
        (f"{official}pos_embed.", f"{prefix}.position."),
        (f"{official}blocks.blocks.", f"{prefix}.blocks."),
        (f"{official}norm.", f"{prefix}.norm."),
    ]


def _encoder_pairs(official: str) -> list[tuple[str, str]]:
    return [
        (f"{official}<m>_token", "encoder.queries.tokens.<m>"),
        (f"{official}<m>_pos", "encoder.queries.positions.<m>"),
        (f"{official}blocks.blocks.<n>.<part>_contrast.", "encoder.queries.blocks.<n>.<part>."),
        *_tower_pairs(official, "encoder"),
    ]


# Prefixes of names, official and of this library; the first match is used.
# <m> is a modality, <n> a number.
_PRETRAINING = [
    *_encoder_pairs("MAE_encoder."),
    ("Dis_encoder.<m>_token", "contrastive.query_tokens.<m>"),
    ("Dis_encoder.<m>_pos", "contrastive.query_positions.<m>"),
    *_tower_pairs("Dis_encoder.", "contrastive"),
    ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed.", "decoder.position."),
    ("increase_dim.0.", "decoder.project."),
    ("MAE_decoder.", "decoder."),
    ("<m>_proj.", "projections.<m>."),
]
_CLASSIFIER = [*_encoder_pairs(""), ("cls_head_finetune.", "head.")]
_SEGMENTER = [
    *_encoder_pairs(""),
    ("label_conv.0.", "object_embed.project."),
    ("label_conv.1.", "object_embed.norm."),
    ("propagation_0.mlp_convs.0.", "propagate.joint_in."),
    ("propagation_0.mlp_convs.1.", "propagate.out."),
    ("propagation_0.mlp_bns.0.", "propagate.joint_norm."),
    ("propagation_0.mlp_bns.1.", "propagate.out_norm."),
    ("convs1.", "point_head.joint_in."),
    ("convs2.", "point_head.middle."),
    ("convs3.", "point_head.out."),
    ("bns1.", "point_head.joint_norm."),
    ("bns2.", "point_head.middle_norm."),
]
_PLACEHOLDERS = {"<m>": r"(cls|img|image|text)", "<n>": r"(\d+)", "<part>": r"(\w+?)"}
_PLACEHOLDER = re.compile("|".join(_PLACEHOLDERS))
# Frozen copies of the teachers, which are not part of the student.
_TEACHERS = re.compile(r"(module\.)?(img|text)_encoder\.")
# Modules of ACT that only its pretraining uses; its encoder does not need them.
_ACT_PRETEXT_PARTS = re.compile(
    r"(module\.)?(dvae_tokenizer|ACT_decoder|decoder_pos_embed|proj_head|mask_token|cls_pos$"
    r"|ACT_encoder\.(lm_head|cls_head))"
)
# Linear layers here that are 1x1 convolutions in the released implementation.
_CONVOLUTION = re.compile(
    r".*\.embed\.(point|joint)_(in|out)\.weight$|(decoder|object_embed)\.project\.weight$"
    r"|(propagate|point_head)\.(joint_in|middle|out)\.weight$"
)


def _compile_prefix(prefix: str) -> re.Pattern[str]:
    return re.compile(
        _PLACEHOLDER.sub(lambda match: _PLACEHOLDERS[match[0]], prefix.replace(".", r"\."))
    )


class _PrefixTable:
    """Pairs of prefixes, official and of this library, with their compiled patterns."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.entries = [
            (pair, (_compile_prefix(pair[0]), _compile_prefix(pair[1]))) for pair in pairs
        ]


NetworkKind = Literal["pretrain", "classify", "segment"]
Family = Literal["ReCon", "Point-MAE", "ACT"]
"""The released implementations; ACT's classifiers have the names of Point-MAE's."""
_FROM_OFFICIAL = _PrefixTable(_PRETRAINING + _CLASSIFIER + _SEGMENTER)
_TO_OFFICIAL: dict[NetworkKind, _PrefixTable] = {
    "pretrain": _PrefixTable(_PRETRAINING),
    "classify": _PrefixTable(_CLASSIFIER),
    "segment": _PrefixTable(_SEGMENTER),
}


def _translate(name: str, table: _PrefixTable, source: int, modality: tuple[str, str]) -> str:
    """Replace the first matching prefix; `source` is the column of the pairs to match."""
    for prefixes, patterns in table.entries:
        if match := patterns[source].match(name):
            translated = prefixes[1 - source]
            for part in match.groups():
                translated = _PLACEHOLDER.sub(
                    modality[1] if part == modality[0] else part, translated, count=1
                )
            return translated + name[match.end() :]
    return name


def from_official_key(official: str) -> str:
    """Return this library's name of a parameter of the released implementation."""
    name = re.sub("^ACT_encoder", "MAE_encoder", official.removeprefix("module."))
    return _translate(name, _FROM_OFFICIAL, 0, ("img", "image"))


def to_official_key(key: str, kind: NetworkKind = "pretrain", family: Family = "ReCon") -> str:
    """Return the released implementation's name of a parameter of this library."""
    name = re.sub(r"^(generative|tower)\.", "encoder.", key)
    name = re.sub(r"^encoder\.query_(token|position)s\.", r"encoder.queries.\1s.", name)
    name = _translate(name, _TO_OFFICIAL[kind], 1, ("image", "img"))
    return re.sub("^MAE_encoder", "ACT_encoder", name) if family == "ACT" else name


def has_official_prefix(names: Iterable[str]) -> bool:
    """Tell whether names belong to a released network."""
    return any(re.match(r"(module\.)?((MAE|Dis|ACT)_|blocks\.blocks\.)", name) for name in names)


def detect_family(names: Iterable[str]) -> Family:
    """Return the implementation that names belong to; only ReCon has a second block stream."""
    stripped = [name.removeprefix("module.") for name in names]
    if any(name.startswith("ACT_encoder.") for name in stripped):
        return "ACT"
    is_ordinary = has_official_prefix(stripped) and not any(
        re.search(r"_contrast\.|^Dis_", n) for n in stripped
    )
    return "Point-MAE" if is_ordinary else "ReCon"


def _to_tower_name(name: str) -> str:
    """Rename a parameter of `Encoder` to its name in `Tower`, the ordinary transformer."""
    return re.sub(r"^encoder\.queries\.(token|position)s\.", r"encoder.query_\1s.", name)


def from_official_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert released weights: names of this library, linear layers for 1x1 convolutions.

    Frozen teachers are removed. Names that are not in the released implementation stay unchanged.
    """
    family = detect_family(state)
    skipped = (
        re.compile(f"{_TEACHERS.pattern}|{_ACT_PRETEXT_PARTS.pattern}")
        if family == "ACT"
        else _TEACHERS
    )
    named = {
        from_official_key(name): tensor for name, tensor in state.items() if not skipped.match(name)
    }
    if any(name.startswith("contrastive.") for name in named):  # two towers
        named = {re.sub(r"^encoder\.", "generative.", name): t for name, t in named.items()}
    if family != "ReCon":
        has_head = any(name.startswith(("head.", "point_head.")) for name in named)
        trunk = "encoder." if has_head else "tower."
        named = {re.sub(r"^encoder\.", trunk, _to_tower_name(n)): t for n, t in named.items()}
    return {
        name: tensor.squeeze(-1) if tensor.ndim == 3 and _CONVOLUTION.match(name) else tensor
        for name, tensor in named.items()
    }


def to_official_state_dict(
    state: Mapping[str, Tensor], kind: NetworkKind, family: Family = "ReCon"
) -> dict[str, Tensor]:
    """Convert this library's weights to released names and shapes.

    The inverse of `from_official_state_dict`.
    """
    shaped = {n: t.unsqueeze(-1) if _CONVOLUTION.match(n) else t for n, t in state.items()}
    return {to_official_key(name, kind, family): tensor for name, tensor in shaped.items()}
