"""The W&B workspace and report of this library's runs, from code.

python scripts/dashboards/build.py --check <run>          # a recorded run, offline ones too
python scripts/dashboards/build.py --entity <you> --project recon
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wandb_reader import read_run


class Panel(NamedTuple):
    """One picture of a dashboard, and what of a run it shows."""

    kind: str
    title: str
    keys: tuple[str, ...]


PRETRAINING = {
    "Losses": [
        Panel("line", "total loss", ("train/total",)),
        Panel("line", "rebuilding", ("train/reconstruction",)),
        Panel("line", "teachers", ("train/image", "train/text")),
        Panel("line", "learning rate", ("lr-AdamW/pg1",)),
    ],
    "Rebuilt clouds": [
        Panel("media", f"shape {number}", tuple(f"rebuilt/{number}/{kind}" for kind in kinds))
        for number, kinds in enumerate([("truth", "seen", "rebuilt")] * 6)
    ],
    "Features": [
        Panel("media", "accuracy", ("accuracy",)),
        Panel("media", "confusion", ("confusion_table",)),
        Panel("media", "classes", ("classes",)),
    ],
}
CLASSIFYING = {
    "Training": [
        Panel("line", "loss", ("train/loss",)),
        Panel("line", "validation accuracy", ("val/accuracy",)),
    ],
    "Test": [
        Panel("media", "confusion", ("confusion_table",)),
        Panel("media", "classes", ("classes",)),
    ],
}
VIEWS = ("truth", "prediction", "error")
SEGMENTING = {
    "Training": [Panel("line", "loss", ("train/loss",))],
    "Test": [
        Panel("media", "IoU by class", ("classes",)),
        *(
            Panel("media", which, tuple(f"segments/{which}/{kind}" for kind in VIEWS))
            for which in ("best", "worst")
        ),
    ],
}  # fmt: skip
DASHBOARDS = {"pretraining": PRETRAINING, "classifying": CLASSIFYING, "segmenting": SEGMENTING}


def build_panel(spec: Panel) -> Any:
    """Return a panel as W&B knows it."""
    import wandb_workspaces.reports.v2 as wr

    if spec.kind == "line":
        return wr.LinePlot(title=spec.title, x="trainer/global_step", y=[*spec.keys])
    return wr.MediaBrowser(title=spec.title, media_keys=[*spec.keys])


def build_workspace(name: str, entity: str, project: str) -> Any:
    """Return the workspace of one kind of run: a section a topic."""
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(name=title, panels=[build_panel(told) for told in panels], is_open=True)
        for title, panels in DASHBOARDS[name].items()
    ]
    return ws.Workspace(entity=entity, project=project, name=f"ReCon: {name}", sections=sections)


def build_report(name: str, entity: str, project: str) -> Any:
    """Return the report of one kind of run: the same panels over all its runs, group by group."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for title, panels in DASHBOARDS[name].items():
        runs = wr.Runset(entity=entity, project=project, groupby=["group"])
        blocks += [
            wr.H1(title),
            wr.PanelGrid(runsets=[runs], panels=[build_panel(p) for p in panels]),
        ]
    told = "Built by scripts/dashboards/build.py."
    title = f"ReCon: {name}"
    return wr.Report(entity=entity, project=project, title=title, description=told, blocks=blocks)


def select_dashboard(keys: Sequence[str]) -> str:
    """Tell which dashboard shows a run that logged these keys."""
    if "train/total" in keys:
        return "pretraining"
    return "segmenting" if any(key.startswith("segments/") for key in keys) else "classifying"


def check_run(folder: Path) -> list[str]:
    """Say what a run does not hold of what its dashboard shows."""
    found = read_run(folder)
    kind = select_dashboard([*found.keys])
    lacking = [
        f"{kind}: {title}, {told.title}: {key} was not logged"
        for title, panels in DASHBOARDS[kind].items()
        for told in panels
        for key in told.keys
        if key not in found.keys
    ]
    build_workspace(kind, "nobody", found.project), build_report(kind, "nobody", found.project)
    count = sum(len(told.keys) for panels in DASHBOARDS[kind].values() for told in panels)
    print(f"{folder}: {kind}, {count - len(lacking)} of {count} keys of its dashboard are there")
    return lacking


def main() -> None:
    """Check a recorded run, or save workspaces and reports online."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", type=Path, help="folder of a run logged with logger=wandb")
    parser.add_argument("--entity", help="your W&B name, or your team's")
    parser.add_argument("--project", default="recon")
    told = parser.parse_args()
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ImportError:
        sys.exit(
            "error: dashboards need wandb-workspaces: pip install 'recon-pointcloud[dashboards]'"
        )
    if told.check:
        try:
            lacking = check_run(told.check)
        except ValueError as error:
            sys.exit(f"error: {error}")
        print(*lacking, sep="\n", end="\n" if lacking else "")
        sys.exit(1 if lacking else 0)
    if not told.entity:
        parser.error("--entity says where to save; --check <run> needs no network")
    try:
        for name in DASHBOARDS:
            for built in (build_workspace, build_report):
                print(built(name, told.entity, told.project).save().url)
    except wandb.Error as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
