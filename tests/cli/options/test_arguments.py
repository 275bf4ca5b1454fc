"""Options keep their meaning, whatever characters their values have."""

from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from recon.cli.options.arguments import FLAGS, normalize_arguments, remove_plus_signs

NAMES = [
    "shapes", "my scans (1)/a.ply", "epoch=3-step=10.ckpt", "a,b", "it's", 'say "hi"', "[1]x",
    "{odd}", "back\\slash", "Möbel", "a;b&c#d!", "2024", "1e5", "a: b", "true", "*.ply",
    "choice(1)", "==", "a%b@c", "<run>", "trailing\\",
]  # fmt: skip


def read(words: list[str]) -> list[object]:
    values = []
    for override in OverridesParser.create().parse_overrides(words):
        parsed = override.value()
        if override.is_sweep_override():
            values.append([str(value) for value in override.sweep_string_iterator()])
        else:
            values.append(parsed.text if hasattr(parsed, "text") else parsed)
    return values


@pytest.mark.parametrize("name", NAMES)
def test_paths_keep_their_characters(name: str) -> None:
    options = [f"checkpoint={name}", f"data.root={name}", f"+x.path={name}", f"files={name}"]
    assert read(normalize_arguments("train", options)) == [name] * len(options)


def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a b")
    for option in ("data.root=~/x", "data.root='~/x'", "name=~/x", 'out="~/x"'):
        assert read(normalize_arguments("train", [option])) == ["/home/a b/x"]
    assert read(normalize_arguments("embed", ["files=[~/a, ~/b (1)]"])) == [
        ["/home/a b/a", "/home/a b/b (1)"]
    ]
    assert read(normalize_arguments("train", ["data.root=x/~/y"])) == ["x/~/y"]


@pytest.mark.parametrize("flag", ["-m", "--multirun", "hydra.mode=MULTIRUN"])
def test_commas_separate_values_in_a_multirun(flag: str, tmp_path: Path) -> None:
    words = normalize_arguments("train", ["x=1,2", "checkpoint=a=1.ckpt,~/b.ckpt", flag])
    numbers, checkpoints = read(words[:2])
    assert numbers == ["1", "2"]
    home = str(Path("~/b.ckpt").expanduser())
    assert [text.strip('"') for text in checkpoints] == ["a=1.ckpt", home]
    assert read(normalize_arguments("train", ["hydra.sweep.dir=a,b (1)", flag])[:1]) == ["a,b (1)"]
    existing = tmp_path / "a,b"
    existing.touch()
    assert read(normalize_arguments("train", [f"checkpoint={existing}", flag])[:1]) == [
        str(existing)
    ]


def test_other_values_pass_unchanged() -> None:
    words = [
        "experiment=pretrain_furniture", "seed=3", "optimizer.lr=1e-3", "model.patch_widths=[8,16]",
        "~callbacks.report", "data.test_split=null", "checkpoint=null", "callbacks/guard=skip",
        "output_dir=outputs/${name}", "network={num_heads:3}", "classes=[a,b]",
    ]  # fmt: skip
    assert normalize_arguments("train", words) == words
    assert normalize_arguments("train", ["-m", "seed=1,2", "x=choice(1,2)"])[1:] == [
        "seed=1,2", "x=choice(1,2)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("logger=None", "logger=none"),
        ("logger=false", "logger=none"),
        ("probe=none", "~probe"),
        ("scheduler=null", "task.scheduler=null"),
        ("callbacks.report=off", "callbacks.report=null"),
        ("data.up=Z", "data.up=z"),
        ("compile=yes", "compile=true"),
        ("trainer.max_time=None", "trainer.max_time=null"),
        ("checkpoint=none", "checkpoint=null"),
    ],
)
def test_values_of_other_spellings_are_converted(option: str, expected: str) -> None:
    assert normalize_arguments("train", [option]) == [expected]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--experiment", "pretrain_furniture"], "write experiment=pretrain_furniture"),
        (["--data.root=x"], "write data.root=x"),
        (["--lr", "0.1"], "write optimizer.lr=0.1"),
        (["pretrain_furniture"], "write experiment=pretrain_furniture"),
        (["seed", "=", "3"], "without spaces around ="),
        (["seed:3"], "write seed=3"),
        (["seed==3"], "write one =, seed=3"),
        (["seed=0,1"], r"add -m; write a list as seed=\[0,1\]"),
        (["mask.ratio=0,5"], "with a point as mask.ratio=0.5"),
        (["model=null"], "is needed: choose among base"),
        (["callbacks=null"], "callbacks.<name>=null"),
        (["nowhere"], "write <option>=<value>"),
    ],
)
def test_other_forms_exit_with_the_form_to_write(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        normalize_arguments("train", words)


def test_an_existing_path_alone_names_its_option(tmp_path: Path) -> None:
    for program, option in (("segment", "files"), ("search", "query"), ("evaluate", "checkpoint")):
        with pytest.raises(SystemExit, match=f"write {option}="):
            normalize_arguments(program, [str(tmp_path)])


def test_flags_are_those_of_hydra() -> None:
    assert set(get_args_parser()._option_string_actions) == FLAGS


def test_plus_signs_are_removed_and_remembered() -> None:
    words, added = remove_plus_signs(["+a.b=1", "++c=2", "d=3", "+hydra.x=1", "~e"])
    assert words == ["a.b=1", "c=2", "d=3", "+hydra.x=1", "~e"]
    assert added == {"a.b", "c"}
