"""Commands, snippets and links of README and docs work."""

import re
import shlex
from pathlib import Path

import lightning
import pytest
from hydra import compose, initialize_config_dir

from recon.checkpoints.loading import load
from recon.cli.config_dir import conf_dir
from recon.cli.options.overrides import quote_override
from recon.info import quote_checkpoint_argument

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
MODULES = "train|prepare|evaluate|segment|convert|embed|search|figures|export|info"
PROGRAMS = rf"python (?:-m recon\.(?:{MODULES})|scripts/cache_teachers\.py) [^\n`]+"
COMMANDS = sorted(
    set(re.findall(PROGRAMS, TEXT)) - {"python -m recon.prepare data=<name> data.root=<folder>"}
)
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_commands_compose(command: str) -> None:
    _, *words = shlex.split(command.replace("<", "").replace(">", ""))
    if words[1] == "recon.info":
        words[2:] = quote_checkpoint_argument(words[2:])
    script = words[1].removeprefix("recon.") if words[0] == "-m" else Path(words[0]).stem
    options = [word for word in words if "=" in word]
    multirun = {
        word.split("=")[0]: word.split(",")[0] for word in options if re.search("=[^[]*,", word)
    }
    options = [multirun.get(word.split("=")[0], word) for word in options]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose(script, [quote_override(option, "query") for option in options])
    required = {
        "segment": ["checkpoint", "files"],
        "convert": ["in", "out"],
        "embed": ["checkpoint", "out"],
        "search": ["features", "query"],
        "figures": ["run", "out"],
        "export": ["checkpoint", "out"],
        "info": ["checkpoint"],
    }
    if script in required:
        assert all(cfg[name] for name in required[script])
        return
    assert cfg.data["_target_"].startswith("recon.data.")
    assert script == "prepare" or cfg.task["_target_"].startswith("recon.tasks.")


def test_each_data_configuration_has_a_card() -> None:
    cards = (ROOT / "docs" / "data" / "README.md").read_text()
    for path in (Path(conf_dir()) / "data").glob("*.yaml"):
        assert f"[`{path.stem}`](" in cards, path.stem


def test_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SNIPPETS) == 2
    features, training = SNIPPETS
    quick = {"fast_dev_run": 1, "accelerator": "cpu", "logger": False}
    trainers = []

    class Quick(lightning.Trainer):
        def __init__(self, **_: object) -> None:
            super().__init__(**quick)
            trainers.append(self)

    monkeypatch.setattr(lightning, "Trainer", Quick)
    namespace: dict[str, object] = {}
    exec(training.replace("transform=", "batch_size=2, transform="), namespace)
    trainers[0].save_checkpoint(tmp_path / "last.ckpt")
    loaded = load(tmp_path / "last.ckpt")
    assert loaded.grouper.groups == 64
    path = re.search(r'PointEncoder\("(.*?)"', features)[1]
    exec(features.replace(path, str(tmp_path / "last.ckpt")), namespace)
    assert namespace["features"].pooled.shape == (192,)  # a generative student: no queries
    assert namespace["dense"].shape == (5000, 192)


def test_links_have_existing_targets() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_makefile_has_the_documented_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    promised = {"help", "install", "demo", "test", "lint", "types", "bench", "clean"}
    assert promised | {"stress", "audit"} <= targets
