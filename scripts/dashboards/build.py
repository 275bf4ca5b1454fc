"""Build the W&B workspaces and reports of this library's runs.

python scripts/dashboards/build.py --check <run>    # check a recorded run, online or offline
python scripts/dashboards/build.py --entity <you> --project recon
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wandb_reader import read_run


class Panel(NamedTuple):
    """One panel of a dashboard, and the logged keys that it plots."""

    kind: str
    title: str
    keys: tuple[str, ...]


NUM_SHOWN_CLOUDS = 6
"""Number of shapes whose reconstructions a run logs."""
CLOUDS = ("truth", "seen", "rebuilt")
VIEWS = ("truth", "prediction", "error")
PRETRAINING = {
    "Losses": [
        Panel("line", "total loss", ("train/total",)),
        Panel("line", "reconstruction", ("train/reconstruction",)),
        Panel("line", "teacher losses", ("train/image", "train/text")),
        Panel("line", "learning rate", ("lr-AdamW/pg1",)),
    ],
    "Masked reconstruction": [
        Panel("media", f"shape {number}", tuple(f"rebuilt/{number}/{view}" for view in CLOUDS))
        for number in range(NUM_SHOWN_CLOUDS)
    ],
    "Linear probe": [
        Panel("media", "accuracy", ("accuracy",)),
        Panel("media", "confusion matrix", ("confusion_table",)),
        Panel("media", "accuracy by class", ("classes",)),
    ],
}
CLASSIFICATION = {
    "Training": [
        Panel("line", "loss", ("train/loss",)),
        Panel("line", "validation accuracy", ("val/accuracy",)),
    ],
    "Test": [
        Panel("media", "confusion matrix", ("confusion_table",)),
        Panel("media", "accuracy by class", ("classes",)),
    ],
}
SEGMENTATION = {
    "Training": [Panel("line", "loss", ("train/loss",))],
    "Test": [
        Panel("media", "IoU by class", ("classes",)),
        *(
            Panel("media", rank, tuple(f"segments/{rank}/{view}" for view in VIEWS))
            for rank in ("best", "worst")
        ),
    ],
}  # fmt: skip
DASHBOARDS = {
    "pretraining": PRETRAINING,
    "classification": CLASSIFICATION,
    "segmentation": SEGMENTATION,
}


def build_panel(spec: Panel) -> Any:
    """Return the W&B panel."""
    import wandb_workspaces.reports.v2 as wr

    if spec.kind == "line":
        return wr.LinePlot(title=spec.title, x="trainer/global_step", y=[*spec.keys])
    return wr.MediaBrowser(title=spec.title, media_keys=[*spec.keys])


def build_workspace(name: str, entity: str, project: str) -> Any:
    """Return the workspace of one kind of run, with one section per topic."""
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(name=title, panels=[build_panel(panel) for panel in panels], is_open=True)
        for title, panels in DASHBOARDS[name].items()
    ]
    return ws.Workspace(entity=entity, project=project, name=f"ReCon: {name}", sections=sections)


def build_report(name: str, entity: str, project: str) -> Any:
    """Return the report of one kind of run, with the same panels over all runs, by group."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for title, panels in DASHBOARDS[name].items():
        runs = wr.Runset(entity=entity, project=project, groupby=["group"])
        blocks += [
            wr.H1(title),
            wr.PanelGrid(runsets=[runs], panels=[build_panel(panel) for panel in panels]),
        ]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"ReCon: {name}",
        description="Built by scripts/dashboards/build.py.",
        blocks=blocks,
    )


def select_dashboard(keys: Sequence[str]) -> str:
    """Return the name of the dashboard for a run that logged these keys."""
    if "train/total" in keys:
        return "pretraining"
    segmented = any(key.startswith("segments/") for key in keys)
    return "segmentation" if segmented else "classification"


def check_run(folder: Path) -> list[str]:
    """Return one line for each key of the run's dashboard that the run did not log."""
    run = read_run(folder)
    name = select_dashboard([*run.keys])
    missing = [
        f"{name}: {title}, {panel.title}: {key} was not logged"
        for title, panels in DASHBOARDS[name].items()
        for panel in panels
        for key in panel.keys
        if key not in run.keys
    ]
    build_workspace(name, "nobody", run.project), build_report(name, "nobody", run.project)
    count = sum(len(panel.keys) for panels in DASHBOARDS[name].values() for panel in panels)
    print(f"{folder}: {name}, {count - len(missing)} of {count} dashboard keys were logged")
    return missing


def main() -> None:
    """Check a recorded run, or save the workspaces and reports to W&B."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", type=Path, help="folder of a run with logger=wandb")
    parser.add_argument("--entity", help="W&B user or team name")
    parser.add_argument("--project", default="recon")
    arguments = parser.parse_args()
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ImportError:
        sys.exit(
            "error: dashboards need wandb-workspaces: pip install 'recon-pointcloud[dashboards]'"
        )
    if arguments.check:
        try:
            missing = check_run(arguments.check)
        except ValueError as error:
            sys.exit(f"error: {error}")
        print(*missing, sep="\n", end="\n" if missing else "")
        sys.exit(1 if missing else 0)
    if not arguments.entity:
        parser.error("--entity is required to save; use --check <run> to check a run offline")
    try:
        for name in DASHBOARDS:
            for build in (build_workspace, build_report):
                print(build(name, arguments.entity, arguments.project).save().url)
    except wandb.Error as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
