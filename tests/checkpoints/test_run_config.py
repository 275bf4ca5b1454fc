"""Configurations beside weights: plain values of limited size; only allowed parts are built."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recon.checkpoints import run_config
from recon.checkpoints.run_config import get_nested, instantiate_allowed, read_config
from recon.cli.evaluation_views import build_test_view
from recon.data.transforms import FarthestPointSample
from recon.search import _build_text_teacher
from standins import CALLS

HOME, TEACHERS = "recon.data.transforms", "recon.teachers"
SUBSET, CACHED = f"{HOME}.FarthestPointSample", f"{TEACHERS}.cached.CachedTextTeacher"
CALL = "{_target_: standins.record_call, argument: 4}"
VIEWS = {
    "direct": CALL,
    "nested": f"{{_target_: {SUBSET}, num_points: {CALL}}}",
    "in_a_list": f"{{_target_: {SUBSET}, num_points: [{CALL}]}}",
    "created": f"{{_target_: {SUBSET}, num_points: \"${{oc.create:'{CALL}'}}\"}}",
    "from_the_environment": f"{{_target_: {SUBSET}, num_points: '${{oc.env:LANG}}'}}",
    "module": f"{{_target_: {HOME}.torch.sqrt, input: 4}}",
    "tag": "!!python/object/apply:math.sqrt [4]",
    "alias": f"{{_target_: {SUBSET}, num_points: [&a [1], *a]}}",
    "nothing": "{count: 3}",
}
TEXTS = {
    "nested": f"{{_target_: {CACHED}, path: a, dim: [{CALL}]}}",
    "module": f"{{_target_: {TEACHERS}.cached.torch.sqrt, input: 4}}",
    "function": f"{{_target_: {TEACHERS}.cached.read_cache, path: a}}",
    "repository": f"{{_target_: {TEACHERS}.text.OpenClipTextTeacher, name: 'hf-hub:a/b', dim: 1}}",
    "unnamed": f"{{_target_: {TEACHERS}.text.OpenClipTextTeacher, _args_: ['hf-hub:a/b', 1]}}",
}


def write_run(folder: Path, text: str) -> str:
    """Write a configuration beside an empty checkpoint."""
    (folder / "config.yaml").write_text(text)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    return str(folder / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("name", VIEWS)
def test_only_transforms_are_built_as_views(name: str, tmp_path: Path) -> None:
    CALLS.clear()
    checkpoint = write_run(tmp_path, f"view: {VIEWS[name]}")
    options = {"view": None, "num_points": None, "checkpoint": checkpoint}
    with pytest.raises(ValueError, match=r"config\.yaml: "):
        build_test_view(OmegaConf.create(options), "classify")
    assert not CALLS


def test_a_view_of_a_run_is_built(tmp_path: Path) -> None:
    checkpoint = write_run(tmp_path, f"view: {{_target_: {SUBSET}, num_points: 7}}")
    options = {"view": None, "num_points": None, "checkpoint": checkpoint}
    view = build_test_view(OmegaConf.create(options), "classify")
    assert isinstance(view, FarthestPointSample)


@pytest.mark.parametrize("name", TEXTS)
def test_only_teachers_are_built_as_teachers(name: str, tmp_path: Path) -> None:
    CALLS.clear()
    checkpoint = write_run(tmp_path, f"teacher: {{text: {TEXTS[name]}}}")
    with pytest.raises(ValueError, match=r"config\.yaml: "):
        _build_text_teacher(OmegaConf.create({"teacher": None, "checkpoint": checkpoint}), {})
    assert not CALLS


def test_errors_of_what_is_built_name_the_file(tmp_path: Path) -> None:
    node = {"_target_": SUBSET, "size": 3}
    with pytest.raises(ValueError, match=r"config\.yaml: not a readable configuration"):
        instantiate_allowed(node, [SUBSET], tmp_path / "config.yaml", "choose another")
    sample = instantiate_allowed({"_target_": SUBSET, "num_points": 3}, [SUBSET], tmp_path, "")
    assert isinstance(sample, FarthestPointSample)


@pytest.mark.parametrize(
    ("limit", "value", "text", "reason"),
    [
        ("MAX_SCALAR_CHARS", 9, "a: 1234567890", r"\b10 characters"),
        ("MAX_NESTING", 2, "a: {b: {c: 1}}", r"\b2\b"),
        ("MAX_NESTING", 2, "a: [[1]]", r"\b2\b"),
        ("MAX_YAML_EVENTS", 9, "a: [1, 2, 3, 4]", r"\b9\b"),
        ("MAX_CONFIG_BYTES", 9, "a: 1234567", ""),
    ],
)
def test_configurations_have_limited_sizes(
    limit: str, value: int, text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    read_config(path)
    monkeypatch.setattr(run_config, limit, value)
    with pytest.raises(ValueError, match=rf"config\.yaml: .*{reason}"):
        read_config(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("a: &b [1]\nc: *b\n"),
        lambda path: path.write_text("{"),
        lambda path: path.write_bytes(b"a: \xff\n"),
        lambda path: path.write_text("!!python/object/apply:math.sqrt [4]"),
        lambda path: path.touch(),
    ],
)
def test_files_that_are_no_plain_configurations_are_named(
    write: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    write(path)
    with pytest.raises(ValueError, match=r"config\.yaml: "):
        read_config(path)


def test_parts_that_are_missing_are_none() -> None:
    config = {"a": {"b": [1]}}
    assert get_nested(config, "a", "b") == [1]
    assert get_nested(config, "a", "c") is None
    assert get_nested(config, "a", "b", "c") is None
