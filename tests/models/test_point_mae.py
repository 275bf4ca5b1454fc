"""Released Point-MAE and ACT checkpoints against a plain definition of their encoders."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import recon
from conftest import assert_near
from recon.checkpoints.loading import load
from recon.checkpoints.transfer import load_pretrained_encoder
from recon.layers.grouping import Patches, PatchGrouper
from recon.models.encoder import Encoder
from recon.models.two_tower import Tower
from recon.point_encoder import PointEncoder

DIM, DEPTH, HEADS, GROUPS, SIZE, CLASSES = 24, 2, 3, 8, 8, 5
SETTINGS = {"num_heads": HEADS, "num_groups": GROUPS}


def block_shapes(prefix: str, dim: int = DIM) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.norm1.weight": (dim,),
        f"{prefix}.norm1.bias": (dim,),
        f"{prefix}.norm2.weight": (dim,),
        f"{prefix}.norm2.bias": (dim,),
        f"{prefix}.attn.qkv.weight": (3 * dim, dim),
        f"{prefix}.attn.proj.weight": (dim, dim),
        f"{prefix}.attn.proj.bias": (dim,),
        f"{prefix}.mlp.fc1.weight": (4 * dim, dim),
        f"{prefix}.mlp.fc1.bias": (4 * dim,),
        f"{prefix}.mlp.fc2.weight": (dim, 4 * dim),
        f"{prefix}.mlp.fc2.bias": (dim,),
    }


def linear_shapes(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def batch_norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def encoder_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the encoder weights in both released formats."""
    shapes = {
        **linear_shapes(f"{prefix}encoder.first_conv.0", 128, 3, 1),
        **batch_norm_shapes(f"{prefix}encoder.first_conv.1", 128),
        **linear_shapes(f"{prefix}encoder.first_conv.3", 256, 128, 1),
        **linear_shapes(f"{prefix}encoder.second_conv.0", 512, 512, 1),
        **batch_norm_shapes(f"{prefix}encoder.second_conv.1", 512),
        **linear_shapes(f"{prefix}encoder.second_conv.3", DIM, 512, 1),
        **linear_shapes(f"{prefix}pos_embed.0", 128, 3),
        **linear_shapes(f"{prefix}pos_embed.2", DIM, 128),
    }
    for number in range(DEPTH):
        shapes |= block_shapes(f"{prefix}blocks.blocks.{number}")
    return shapes | {f"{prefix}norm.weight": (DIM,), f"{prefix}norm.bias": (DIM,)}


def decoder_shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {
        "mask_token": (1, 1, DIM),
        **linear_shapes("decoder_pos_embed.0", 128, 3),
        **linear_shapes("decoder_pos_embed.2", DIM, 128),
        **block_shapes(f"{name}.blocks.0"),
        f"{name}.norm.weight": (DIM,),
        f"{name}.norm.bias": (DIM,),
    }


def class_token_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}cls_token": (1, 1, DIM), f"{prefix}cls_pos": (1, 1, DIM)}


LAYOUTS = {
    "point_mae": encoder_shapes("MAE_encoder.")
    | decoder_shapes("MAE_decoder")
    | linear_shapes("increase_dim.0", 3 * SIZE, DIM, 1),
    "act": encoder_shapes("ACT_encoder.")
    | class_token_shapes("ACT_encoder.")
    | linear_shapes("ACT_encoder.lm_head", 9, DIM)
    | linear_shapes("ACT_encoder.cls_head.0", 7, DIM)
    | linear_shapes("ACT_encoder.cls_head.2", 7, 7)
    | decoder_shapes("ACT_decoder")
    | linear_shapes("proj_head", DIM, DIM)
    | {"dvae_tokenizer.codebook": (9, DIM), "dvae_tokenizer.encoder.first_conv.0.weight": (2, 3)},
    "classifier": encoder_shapes("")
    | class_token_shapes("")
    | linear_shapes("cls_head_finetune.0", 256, 2 * DIM)
    | batch_norm_shapes("cls_head_finetune.1", 256)
    | linear_shapes("cls_head_finetune.4", 256, 256)
    | batch_norm_shapes("cls_head_finetune.5", 256)
    | linear_shapes("cls_head_finetune.8", CLASSES, 256),
}


def random_weights(name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, shape in LAYOUTS[name].items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(4)
        else:
            value = 0.3 * torch.randn(shape, generator=generator)
            state[key] = value.abs() + 0.5 if key.endswith("running_var") else value
    return state


def save_released(folder: Path, name: str, prefix: str = "") -> Path:
    state = {prefix + key: value for key, value in random_weights(name).items()}
    torch.save({"base_model": state, "epoch": 299, "metrics": {}}, folder / f"{name}.pth")
    return folder / f"{name}.pth"


def encode_by_definition(state: dict[str, Tensor], patches: Patches, cls: bool) -> Tensor:
    """Encode as defined in the papers: x + pos before each pre-norm block."""

    def batch_norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

    def affine(x: Tensor, name: str) -> Tensor:
        weight = state[f"{name}.weight"].flatten(1)
        return x @ weight.T + state.get(f"{name}.bias", torch.zeros(len(weight)))

    def layer_norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (DIM,), state[f"{name}.weight"], state[f"{name}.bias"])

    tokens = torch.zeros(*patches.points.shape[:2], DIM)
    for b, g in [(b, g) for b in range(tokens.shape[0]) for g in range(tokens.shape[1])]:
        x = affine(patches.points[b, g], "encoder.first_conv.0")
        x = affine(batch_norm(x, "encoder.first_conv.1").relu(), "encoder.first_conv.3")
        x = torch.cat([x.amax(0).expand_as(x), x], 1)
        x = batch_norm(affine(x, "encoder.second_conv.0"), "encoder.second_conv.1").relu()
        tokens[b, g] = affine(x, "encoder.second_conv.3").amax(0)
    position = affine(F.gelu(affine(patches.centers, "pos_embed.0")), "pos_embed.2")
    if cls:
        tokens = torch.cat([state["cls_token"].expand(len(tokens), -1, -1), tokens], 1)
        position = torch.cat([state["cls_pos"].expand(len(tokens), -1, -1), position], 1)
    for number in range(DEPTH):
        name, tokens = f"blocks.blocks.{number}", tokens + position
        q, k, v = affine(layer_norm(tokens, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, -1)
        width, heads = DIM // HEADS, []
        for h in range(HEADS):
            part = slice(h * width, (h + 1) * width)
            attention = (q[..., part] @ k[..., part].mT / width**0.5).softmax(-1)
            heads.append(attention @ v[..., part])
        tokens = tokens + affine(torch.cat(heads, -1), f"{name}.attn.proj")
        hidden = F.gelu(affine(layer_norm(tokens, f"{name}.norm2"), f"{name}.mlp.fc1"))
        tokens = tokens + affine(hidden, f"{name}.mlp.fc2")
    return layer_norm(tokens, "norm")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", LAYOUTS)
@torch.no_grad()
def test_released_encoders_match_their_definition(name: str, prefix: str, tmp_path: Path) -> None:
    path = save_released(tmp_path, name, prefix)
    settings = SETTINGS | ({} if name == "point_mae" else {"group_size": SIZE})
    task = "classify" if name == "classifier" else "pretrain"
    network = load(path, task=task, **settings)
    points = torch.randn(2, 40, 3)
    encoding = network.encode(points)
    key_prefix = {"point_mae": "MAE_encoder.", "act": "ACT_encoder."}.get(name, "")
    state = {key.removeprefix(key_prefix): value for key, value in random_weights(name).items()}
    patches = PatchGrouper(GROUPS, SIZE)(points)
    expected = encode_by_definition(state, patches, cls=name != "point_mae")
    if name != "point_mae":
        assert_near(encoding.queries["cls"], expected[:, 0])
        expected = expected[:, 1:]
    assert_near(encoding.tokens, expected)
    assert list(encoding.queries) == ([] if name == "point_mae" else ["cls"])


@torch.no_grad()
def test_classifier_reads_the_class_token_and_the_maximum(tmp_path: Path) -> None:
    network = load(
        save_released(tmp_path, "classifier"), task="classify", group_size=SIZE, **SETTINGS
    )
    points = torch.randn(3, 40, 3)
    encoding = network.encode(points)
    feature = torch.cat([encoding.queries["cls"], encoding.tokens.amax(1)], 1)
    assert_near(network(points), network.head(feature))
    assert network(points).shape == (3, CLASSES)


@pytest.mark.parametrize("name", LAYOUTS)
def test_point_encoder_reads_every_released_file(name: str, tmp_path: Path) -> None:
    settings = SETTINGS | ({} if name == "point_mae" else {"group_size": SIZE})
    encoder = recon.PointEncoder(save_released(tmp_path, name), **settings)
    assert isinstance(encoder, PointEncoder)
    features = encoder.encode(torch.rand(100, 3))
    assert (features.cls is None) == (name == "point_mae")
    assert features.image is None
    assert features.tokens.shape == (GROUPS, DIM)


def test_point_mae_reconstructs_masked_patches(tmp_path: Path) -> None:
    network = load(save_released(tmp_path, "point_mae"), **SETTINGS)
    mask = torch.tensor([True, False] * (GROUPS // 2)).expand(2, -1)
    out = network(torch.randn(2, 40, 3), mask)
    assert out.predicted.shape == out.target.shape == (GROUPS, SIZE, 3)
    with pytest.raises(ValueError, match="needs a mask"):
        network(torch.randn(2, 40, 3), None)


@pytest.mark.parametrize(
    ("name", "missing_key"),
    [
        ("point_mae", "MAE_encoder.blocks.blocks.1.mlp.fc1.bias"),
        ("act", "ACT_encoder.cls_token"),
        ("act", "ACT_encoder.norm.bias"),
        ("classifier", "cls_pos"),
    ],
)
def test_missing_keys_are_reported_by_their_official_names(
    name: str, missing_key: str, tmp_path: Path
) -> None:
    state = random_weights(name)
    del state[missing_key]
    torch.save(state, tmp_path / "x.pth")
    task = "classify" if name == "classifier" else "pretrain"
    settings = {} if name == "point_mae" else {"group_size": SIZE}
    with pytest.raises(ValueError, match=rf"x.pth: .*missing: {missing_key} "):
        load(tmp_path / "x.pth", task=task, **SETTINGS, **settings)


def test_unexpected_keys_are_reported(tmp_path: Path) -> None:
    state = random_weights("act") | linear_weights("ACT_encoder.reduce_dim")
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"unexpected: ACT_encoder.reduce_dim.weight"):
        load(tmp_path / "x.pth", group_size=SIZE, **SETTINGS)
    segmenter = random_weights("classifier") | {"convs3.weight": torch.zeros(4, 256, 1)}
    torch.save(segmenter, tmp_path / "seg.pth")
    with pytest.raises(ValueError, match="seg.pth: a segmenter of Point-MAE cannot be loaded"):
        load(tmp_path / "seg.pth", task="scene_segment", **SETTINGS)


@pytest.mark.parametrize("prefix", ["MAE_encoder.", ""])
def test_an_encoder_alone_gives_the_features_of_its_network(prefix: str, tmp_path: Path) -> None:
    state, own = random_weights("point_mae"), "MAE_encoder."
    encoder = {k.removeprefix(own): v for k, v in state.items() if k.startswith(own)}
    torch.save({prefix + key: value for key, value in encoder.items()}, tmp_path / "x.pth")
    loaded = load(tmp_path / "x.pth", group_size=SIZE, **SETTINGS)
    points = torch.randn(2, 40, 3)
    whole = load(save_released(tmp_path, "point_mae"), **SETTINGS)
    assert torch.equal(loaded.encode(points).tokens, whole.encode(points).tokens)
    assert loaded.encode(points).queries == {}


def linear_weights(name: str) -> dict[str, Tensor]:
    return {key: torch.zeros(shape) for key, shape in linear_shapes(name, DIM, DIM).items()}


def test_recon_encoder_rejects_standard_transformer_weights(tmp_path: Path) -> None:
    sizes = {"depth": DEPTH, "heads": HEADS}
    encoder = Encoder(DIM, queries=(), **sizes)
    with pytest.raises(ValueError, match=r"point_mae.pth: contains a standard transformer"):
        load_pretrained_encoder(save_released(tmp_path, "point_mae"), encoder)
    names = {f"encoder.{name}" for name in Tower(DIM, **sizes).state_dict()}
    assert names == {f"encoder.{name}" for name in encoder.state_dict()}  # the names alone match
