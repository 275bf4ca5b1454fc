from pathlib import Path

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from conftest import released_json
from recon.teachers.base import Teacher
from recon.teachers.image import OpenClipImageTeacher, TimmImageTeacher
from recon.teachers.text import OpenClipTextTeacher

CLIP = "ViT-S-32-alt"
IMAGES = torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8)


@pytest.fixture(scope="module")
def timm_teacher() -> TimmImageTeacher:
    return TimmImageTeacher("vit_tiny_patch16_224", 192, pretrained=False)


@pytest.fixture(scope="module")
def text_teacher() -> OpenClipTextTeacher:
    return OpenClipTextTeacher(CLIP, 256, weights=None)


def test_image_features_are_the_class_token_after_the_final_norm(
    timm_teacher: TimmImageTeacher,
) -> None:
    network = timm_teacher.network
    mean, std = (torch.tensor(network.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    expected = network.forward_features((IMAGES / 255 - mean) / std)[:, 0]
    assert_close(timm_teacher({"image": IMAGES}), expected)


def test_images_of_another_size_raise_if_the_network_has_a_fixed_size(
    timm_teacher: TimmImageTeacher,
) -> None:
    small = {"image": IMAGES[:, :, :128, :128]}
    with pytest.raises(ValueError, match=r"224 x 224 pixels, got 128 x 128: set data.augment_im"):
        timm_teacher(small)
    any_size = TimmImageTeacher("efficientnet_lite0", 1280, pretrained=False)
    assert any_size(small).shape == (len(IMAGES), 1280)


def test_timm_teacher_loads_a_local_file(tmp_path: Path) -> None:
    source = timm.create_model("vit_tiny_patch16_224")  # with its classifier, as downloaded
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    weights = str(tmp_path / "vit.safetensors")
    teacher = TimmImageTeacher("vit_tiny_patch16_224", 192, weights=weights)
    assert torch.equal(teacher.network.blocks[3].mlp.fc1.weight, source.blocks[3].mlp.fc1.weight)


def test_clip_teachers_load_a_local_file_and_its_pixel_statistics(tmp_path: Path) -> None:
    source = open_clip.create_model(CLIP)
    torch.save(source.state_dict(), tmp_path / "clip.pt")
    image = OpenClipImageTeacher(CLIP, 256, weights=str(tmp_path / "clip.pt"))
    text = OpenClipTextTeacher(CLIP, 256, weights=str(tmp_path / "clip.pt"))
    assert_close(image.mean.flatten(), torch.tensor(source.visual.image_mean))
    normalized = (IMAGES / 255 - image.mean) / image.std
    assert_close(image({"image": IMAGES}), source.eval().encode_image(normalized))
    tokens = open_clip.get_tokenizer(CLIP)(["A model of a chair."])
    assert_close(text({"text": ["A model of a chair."]}), source.encode_text(tokens))


def test_tokens_match_the_release(text_teacher: OpenClipTextTeacher) -> None:
    released = released_json("clip_prompts_tokens.json")["tokens"]
    assert len(released) == 64
    for prompt, tokens in released.items():
        own_tokens = text_teacher.tokenizer([prompt])[0].tolist()
        assert [token for token in own_tokens if token] == [token for token in tokens if token]


def test_teachers_are_frozen_in_evaluation_mode_and_not_in_checkpoints(
    timm_teacher: Teacher, text_teacher: Teacher
) -> None:
    student = nn.ModuleDict({"image": timm_teacher, "text": text_teacher}).train()
    for teacher in (timm_teacher, text_teacher):
        assert not teacher.training
        assert not any(module.training for module in teacher.network.modules())
        assert not any(p.requires_grad for p in teacher.network.parameters())
    assert student.state_dict() == {}
    assert list(student.parameters()) == []
    assert not timm_teacher({"image": IMAGES}).requires_grad


def test_teacher_network_moves_with_its_student(timm_teacher: TimmImageTeacher) -> None:
    nn.ModuleDict({"image": timm_teacher}).double()
    assert timm_teacher.network.patch_embed.proj.weight.dtype == torch.float64
    nn.ModuleDict({"image": timm_teacher}).float()


def test_dim_other_than_the_models_raises_value_error() -> None:
    with pytest.raises(ValueError, match="features of width 192, but dim is set to 768"):
        TimmImageTeacher("vit_tiny_patch16_224", 768, pretrained=False)
    with pytest.raises(ValueError, match="features of width 256, but dim is set to 512"):
        OpenClipTextTeacher(CLIP, 512, weights=None)


def test_unknown_names_and_unreadable_weights_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="timm has no model 'vit_huge_nonsense'"):
        TimmImageTeacher("vit_huge_nonsense", 768)
    with pytest.raises(ValueError, match="open_clip has no model 'ViT-Z'"):
        OpenClipTextTeacher("ViT-Z", 512)
    with pytest.raises(ValueError, match="neither a local file nor one of ViT-B-32's weights"):
        OpenClipTextTeacher("ViT-B-32", 512, weights="opanai")
    with pytest.raises(FileNotFoundError, match=r"gone.safetensors: no such weights file"):
        TimmImageTeacher("vit_tiny_patch16_224", 192, weights=str(tmp_path / "gone.safetensors"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with pytest.raises(OSError, match="cannot load teacher vit_tiny.*give a weights file of this"):
        TimmImageTeacher("vit_tiny_patch16_224", 192, weights=str(broken))
