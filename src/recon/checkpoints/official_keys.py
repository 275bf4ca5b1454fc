"""Names of the released implementation's parameters, to ours and back."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor


def _tower(official: str, ours: str) -> list[tuple[str, str]]:
    return [
        (f"{official}encoder.first_conv.0.", f"{ours}.embed.point_in."),
        (f"{official}encoder.first_conv.1.", f"{ours}.embed.point_norm."),
        (f"{official}encoder.first_conv.3.", f"{ours}.embed.point_out."),
        (f"{official}encoder.second_conv.0.", f"{ours}.embed.joint_in."),
        (f"{official}encoder.second_conv.1.", f"{ours}.embed.joint_norm."),
        (f"{official}encoder.second_conv.3.", f"{ours}.embed.joint_out."),
        (f"{official}pos_embed.", f"{ours}.position."),
        (f"{official}blocks.blocks.", f"{ours}.blocks."),
        (f"{official}norm.", f"{ours}.norm."),
    ]


def _encoder(official: str) -> list[tuple[str, str]]:
    return [
        (f"{official}<m>_token", "encoder.queries.tokens.<m>"),
        (f"{official}<m>_pos", "encoder.queries.positions.<m>"),
        (f"{official}blocks.blocks.<n>.<part>_contrast.", "encoder.queries.blocks.<n>.<part>."),
        *_tower(official, "encoder"),
    ]


# Beginnings of names, official and ours; the first that fits. <m> is a modality, <n> a number.
_PRETRAINING = [
    *_encoder("MAE_encoder."),
    ("Dis_encoder.<m>_token", "contrastive.query_tokens.<m>"),
    ("Dis_encoder.<m>_pos", "contrastive.query_positions.<m>"),
    *_tower("Dis_encoder.", "contrastive"),
    ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed.", "decoder.position."),
    ("increase_dim.0.", "decoder.project."),
    ("MAE_decoder.", "decoder."),
    ("<m>_proj.", "projections.<m>."),
]
_CLASSIFIER = [*_encoder(""), ("cls_head_finetune.", "head.")]
_SEGMENTER = [
    *_encoder(""),
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
_HOLES = {"<m>": r"(cls|img|image|text)", "<n>": r"(\d+)", "<part>": r"(\w+?)"}
_HOLE = re.compile("|".join(_HOLES))
# Frozen copies of the teachers, not of the student.
_TEACHERS = re.compile(r"(module\.)?(img|text)_encoder\.")
# What ACT imitates its teacher with, which has no part in its features.
_IMITATION = re.compile(
    r"(module\.)?(dvae_tokenizer|ACT_decoder|decoder_pos_embed|proj_head|mask_token|cls_pos$"
    r"|ACT_encoder\.(lm_head|cls_head))"
)
_CONVOLUTION = re.compile(
    r".*\.embed\.(point|joint)_(in|out)\.weight$|(decoder|object_embed)\.project\.weight$"
    r"|(propagate|point_head)\.(joint_in|middle|out)\.weight$"
)


def _regex(beginning: str) -> re.Pattern[str]:
    return re.compile(_HOLE.sub(lambda hole: _HOLES[hole[0]], beginning.replace(".", r"\.")))


class _Dictionary:
    """Pairs of beginnings, as patterns."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.entries = [(pair, (_regex(pair[0]), _regex(pair[1]))) for pair in pairs]


NetworkKind = Literal["pretrain", "classify", "segment"]
Family = Literal["ReCon", "Point-MAE", "ACT"]
"""Whose released networks have such names; ACT's classifiers have those of Point-MAE's."""
_FROM = _Dictionary(_PRETRAINING + _CLASSIFIER + _SEGMENTER)
_TO: dict[NetworkKind, _Dictionary] = {
    "pretrain": _Dictionary(_PRETRAINING),
    "classify": _Dictionary(_CLASSIFIER),
    "segment": _Dictionary(_SEGMENTER),
}


def _translate(name: str, dictionary: _Dictionary, source: int, modality: tuple[str, str]) -> str:
    for names, patterns in dictionary.entries:
        if found := patterns[source].match(name):
            translated = names[1 - source]
            for part in found.groups():
                translated = _HOLE.sub(
                    modality[1] if part == modality[0] else part, translated, count=1
                )
            return translated + name[found.end() :]
    return name


def from_official_key(official: str) -> str:
    """Return this library's name of a parameter of the released implementation."""
    name = re.sub("^ACT_encoder", "MAE_encoder", official.removeprefix("module."))
    return _translate(name, _FROM, 0, ("img", "image"))


def to_official_key(ours: str, kind: NetworkKind = "pretrain", family: Family = "ReCon") -> str:
    """Return the released implementation's name of a parameter of this library."""
    name = re.sub(r"^(generative|tower)\.", "encoder.", ours)
    name = re.sub(r"^encoder\.query_(token|position)s\.", r"encoder.queries.\1s.", name)
    name = _translate(name, _TO[kind], 1, ("image", "img"))
    return re.sub("^MAE_encoder", "ACT_encoder", name) if family == "ACT" else name


def has_official_prefix(names: Iterable[str]) -> bool:
    """Tell whether names are those of a released network."""
    return any(re.match(r"(module\.)?((MAE|Dis|ACT)_|blocks\.blocks\.)", name) for name in names)


def detect_family(names: Iterable[str]) -> Family:
    """Tell whose released network has such names: ReCon's alone have a second stream of blocks."""
    known = [name.removeprefix("module.") for name in names]
    if any(name.startswith("ACT_encoder.") for name in known):
        return "ACT"
    ordinary = has_official_prefix(known) and not any(
        re.search(r"_contrast\.|^Dis_", n) for n in known
    )
    return "Point-MAE" if ordinary else "ReCon"


def _ordinary(name: str) -> str:
    """Rename a parameter of `Encoder` as `Tower`, the ordinary transformer, has it."""
    return re.sub(r"^encoder\.queries\.(token|position)s\.", r"encoder.query_\1s.", name)


def from_official_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert released weights: our names, 1x1 convolutions as linear layers, no teachers.

    Names that the released implementation does not have pass through unchanged.
    """
    family = detect_family(state)
    left = re.compile(f"{_TEACHERS.pattern}|{_IMITATION.pattern}") if family == "ACT" else _TEACHERS
    named = {
        from_official_key(name): tensor for name, tensor in state.items() if not left.match(name)
    }
    if any(name.startswith("contrastive.") for name in named):  # two towers
        named = {re.sub(r"^encoder\.", "generative.", name): t for name, t in named.items()}
    if family != "ReCon":
        pretrained = any(re.match(r"(module\.)?(MAE|ACT)_encoder\.", name) for name in state)
        trunk = "tower." if pretrained else "encoder."
        named = {re.sub(r"^encoder\.", trunk, _ordinary(n)): t for n, t in named.items()}
    return {
        name: tensor.squeeze(-1) if tensor.ndim == 3 and _CONVOLUTION.match(name) else tensor
        for name, tensor in named.items()
    }


def to_official_state_dict(
    state: Mapping[str, Tensor], kind: NetworkKind, family: Family = "ReCon"
) -> dict[str, Tensor]:
    """Convert this library's weights to released names and shapes, undoing `from_official`."""
    shaped = {n: t.unsqueeze(-1) if _CONVOLUTION.match(n) else t for n, t in state.items()}
    return {to_official_key(name, kind, family): tensor for name, tensor in shaped.items()}
