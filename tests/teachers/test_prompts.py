from pathlib import Path

import pytest

from conftest import released_json
from recon.teachers.prompts import PREFIXES, SUFFIXES, build_prompts, load_templates


def test_prompts_match_the_release_in_order() -> None:
    released = released_json("clip_prompts_tokens.json")
    assert build_prompts("night_stand") == released["prompts_night_stand_index_0_59"]
    assert list(PREFIXES) == released["template"]
    assert list(SUFFIXES) == released["template_last"]


def test_templates_are_loaded_by_number_or_from_files(tmp_path: Path) -> None:
    assert [t.replace("{}", "night_stand") for t in load_templates(60)] == build_prompts(
        "night_stand"
    )
    assert len(set(load_templates(64))) == 64
    (tmp_path / "own.txt").write_text("a {}\n\nthe {} there\n")
    (tmp_path / "own.json").write_text('["one {}"]')
    assert load_templates(tmp_path / "own.txt") == ["a {}", "the {} there"]
    assert load_templates(str(tmp_path / "own.json")) == ["one {}"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "a chair", "a.txt: 'a chair': each template needs {}"),
        ("a.txt", "", "a.txt: contains no templates"),
        ("a.json", "{", "a.json: not valid JSON"),
        ("a.json", '{"templates": 3}', "a.json: contains no list of sentences"),
    ],
)
def test_unusable_templates_raise(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_templates(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="none.txt: no such template file"):
        load_templates(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="must be 60, 64, a file or a list of sentences, got 61"):
        load_templates(61)
