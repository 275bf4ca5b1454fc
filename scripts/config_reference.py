"""Write docs/configuration.md from conf/: `python scripts/config_reference.py`."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "configuration.md"
INTRODUCTION = """# Configuration

Made from [conf/](../conf) by `python scripts/config_reference.py`: what each program and group
can be told. On the command line a key is set as `group.key=value`, a group as `group=option`;
`--cfg job` after a command prints what it would run with, `--help` the groups. `${...}` refers to
another key, `???` must be given, and below a `_target_` stand the arguments of that class or
function, which may be one of your own.
"""
GROUP_DESCRIPTIONS = {
    "callbacks": "what happens beside training",
    "callbacks/guard": "what happens to a step that is not finite ([faults](faults.md))",
    "data": "data sets; each has [a card](data/README.md)",
    "debug": "settings to try things with",
    "hparams_search": "many runs: searches and the grids of ablations ([sweeps](sweeps.md))",
    "hydra/launcher": "where the runs of a multirun go ([clusters](cluster.md))",
    "logger": "where curves go ([dashboards](dashboards.md))",
    "loss/distillation": "how a projected query is compared with its teacher",
    "loss/reconstruction": "how rebuilt patches are compared with the true ones",
    "loss/self_contrast": "contrast of clouds with each other, by the cls query",
    "mask": "which patches are hidden",
    "model": "sizes of the network",
    "optimizer": "one of torch's",
    "probe": "a linear SVM during pretraining",
    "protocol": "what of a classifier is trained",
    "scheduler": "of the learning rate",
    "student": "what is learned: the LightningModule and its network",
    "task": "what `recon.evaluate` measures",
    "teacher": "image and text features to learn from",
    "trainer": "Lightning's Trainer: devices, epochs, precision",
    "transform": "augmentations",
}


def render_reference() -> str:
    """Return the page; raise ValueError for a group that is not described or a class not found."""
    page = [INTRODUCTION, "## Programs"]
    programs = sorted(CONF.glob("*.yaml"))
    page += [_option(path, f"python -m recon.{path.stem}") for path in programs]
    folders = {path.parent for path in CONF.rglob("*.yaml") if "parts" not in path.parts}
    groups = sorted(folder.relative_to(CONF).as_posix() for folder in folders - {CONF})
    for group in groups:
        if group == "experiment":
            page += [_experiments()]
        elif group in GROUP_DESCRIPTIONS:
            text = GROUP_DESCRIPTIONS[group]
            page += [f"## `{group}=`\n\n{text[0].upper()}{text[1:]}."]
            page += [_option(p, f"{group}={p.stem}") for p in sorted((CONF / group).glob("*.yaml"))]
        else:
            raise ValueError(f"conf/{group}: say in ABOUT of {Path(__file__).name} what it is")
    return "\n\n".join(part.strip() for part in page) + "\n"


def _option(path: Path, title: str) -> str:
    """Describe one file: what it says, and the classes behind it."""
    text = path.read_text().strip()
    title = title.replace("python -m recon.cache_teachers", "python scripts/cache_teachers.py")
    lines = [f"### `{title}`", f"```yaml\n{text}\n```"]
    if targets := _targets(path):
        lines.append("Behind it: " + ", ".join(targets) + ".")
    return "\n\n".join(lines)


def _targets(path: Path) -> list[str]:
    """Return a link to each class that a file or its own parts name."""
    used = re.findall(r"parts/(\w+)@_here_", path.read_text())
    files = [path, *(path.parent / "parts" / f"{name}.yaml" for name in used)]
    names = [n for file in files for n in re.findall(r"_target_: ([\w.]+)", file.read_text())]
    return [_linked(name, path) for name in dict.fromkeys(names)]


def _linked(name: str, path: Path) -> str:
    module, _, member = name.rpartition(".")
    if not module.startswith("recon"):
        return f"`{name}`"
    source = ROOT / "src" / f"{module.replace('.', '/')}.py"
    if not source.is_file() or not re.search(rf"^(class|def) {member}\b", source.read_text(), re.M):
        raise ValueError(f"{path}: names {name}, which is not there")
    return f"[`{name}`](../{source.relative_to(ROOT).as_posix()})"


def _experiments() -> str:
    rows = []
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        text = path.read_text().splitlines()
        comments = [line[2:] for line in text if line.startswith("# ")]
        said = [x.strip() for x in comments if not x.startswith(("@package", "python ", "  "))]
        link = f"[`{path.stem}`](../conf/experiment/{path.name})"
        rows.append(f"| {link} | {' '.join(said).replace('|', chr(92) + '|')} |")
    head = "Whole recipes, as differences from the defaults. The head of each file has its command."
    return "\n".join(["## `experiment=`", "", head, "", "| | |", "|---|---|", *rows])


if __name__ == "__main__":
    PAGE.write_text(render_reference())
