"""An offline W&B run holds what its dashboard shows; W&B never asks and never stops a run."""

import json
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import wandb
from hydra import compose, initialize_config_dir

from recon.callbacks.loggers import build_wandb_logger
from recon.cli.config_dir import conf_dir
from recon.train import train

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "dashboards"))
from build import DASHBOARDS, build_report, build_workspace, check_run  # noqa: E402
from wandb_reader import read_run  # noqa: E402


@pytest.fixture(autouse=True)
def _silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "nowhere")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield
    wandb.teardown()


def run(experiment: str, folder: Path, *options: str) -> None:
    told = [f"experiment={experiment}", "debug=tiny", "logger=wandb", *options]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*told, f"output_dir={folder}"]))
    wandb.teardown()  # as the end of a program: all is written


@pytest.mark.slow
def test_an_offline_run_is_read_back_and_holds_what_its_dashboard_shows(tmp_path: Path) -> None:
    run("pretrain_furniture", tmp_path, "logger.log_model=true", "logger.tags=[a,b]",
        "logger.watch=gradients", "logger.watch_every=1", "seed=3")  # fmt: skip
    assert check_run(tmp_path) == []
    found = read_run(tmp_path)
    assert (found.project, found.group, found.tags) == ("recon", "pretrain_furniture", ["a", "b"])
    assert found.config["seed"] == 3
    assert found.config["mask"]["ratio"] == 0.3
    assert any(key.startswith("gradients/model.encoder") for key in found.keys)
    assert any(name.startswith("model-") for name in found.artifacts)
    assert "object3D-file" in found.keys["rebuilt/0/truth"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "option"),
    [("finetune_furniture", "eval.votes=0"), ("partseg_furniture", "data.num_points=64")],
)
def test_tests_log_what_their_dashboards_show(experiment: str, option: str, tmp_path: Path) -> None:
    run(experiment, tmp_path, option)
    lacking = check_run(tmp_path)
    assert [line for line in lacking if "best" not in line] == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_workspace_and_report_hold_every_panel(name: str) -> None:
    panels = [panel for panels in DASHBOARDS[name].values() for panel in panels]
    built = [p for section in build_workspace(name, "me", "recon").sections for p in section.panels]
    grids = [
        block for block in build_report(name, "me", "recon").blocks if hasattr(block, "panels")
    ]
    for shown in (built, [p for grid in grids for p in grid.panels]):
        assert [p.title for p in shown] == [panel.title for panel in panels]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no .wandb file"):
        read_run(tmp_path)
    (tmp_path / "x.wandb").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"x.wandb: not a .wandb file"):
        read_run(tmp_path)


@pytest.mark.slow
def test_without_an_answer_a_run_is_logged_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:  # a port where nothing answers
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    began = time.monotonic()
    short = {"init_timeout": 2.0, "login_timeout": 2.0}
    logger = build_wandb_logger(project="recon", save_dir=tmp_path, settings=short)
    logger.log_metrics({"loss": 0.5}, step=1)
    logger.close(failed=False)
    assert time.monotonic() - began < 60
    wandb.teardown()
    assert "WANDB_MODE" not in os.environ  # the next run of a multirun tries again
    assert "W&B cannot be reached" in capsys.readouterr().out
    assert read_run(tmp_path).keys["loss"] == [0.5]


def test_it_never_asks_for_a_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"logger.offline=false: no W&B key is known"):
        build_wandb_logger(offline=False, save_dir=tmp_path)
    with pytest.raises(ValueError, match="watch must be gradients, parameters or all"):
        build_wandb_logger(watch="weights", save_dir=tmp_path)


def test_wrong_settings_are_named_and_one_tag_is_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="log_model must be true, false or all, got 'maybe'"):
        build_wandb_logger(log_model="maybe", save_dir=tmp_path)
    with pytest.raises(ValueError, match=r"logger.settings.nosuch=1: not one of wandb.Settings"):
        build_wandb_logger(settings={"nosuch": 1}, save_dir=tmp_path)
    assert build_wandb_logger(tags="first", save_dir=tmp_path)._wandb_init["tags"] == ["first"]


def test_where_it_is_disabled_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = build_wandb_logger(project="recon", save_dir=tmp_path)
    logger.log_metrics({"loss": 0.5}, step=1)
    logger.close(failed=False)
    assert not [*tmp_path.rglob("*.wandb")]


@pytest.mark.slow
def test_other_dashboards_get_metrics_and_configuration(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = ["experiment=pretrain_furniture", "debug=tiny", "~callbacks.report"]
    for name in ("tensorboard", "mlflow"):
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            train(compose("train", [*told, f"logger={name}", f"output_dir={tmp_path / name}"]))
    events = EventAccumulator(str(tmp_path / "tensorboard" / "tensorboard")).Reload()
    assert np.isfinite(events.Scalars("train/total")[0].value)
    with sqlite3.connect(tmp_path / "mlflow" / "mlflow.db") as store:
        ((value,),) = store.execute("select value from metrics where key = 'train/total'")
        ((seed,),) = store.execute("select value from params where key = 'seed'")
    assert np.isfinite(value)
    assert seed == "0"


class Server(BaseHTTPRequestHandler):
    """As much of W&B's server as lets a run begin online."""

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        query = json.loads(sent).get("query", "") if self.path == "/graphql" else ""
        project = {"id": "p", "name": "recon", "entity": {"id": "e", "name": "me"}}
        run = {"id": "r", "name": "r", "displayName": "r", "config": "{}", "project": project}
        viewer = {
            "id": "v",
            "entity": "me",
            "username": "me",
            "flags": "{}",
            "teams": {"edges": []},
        }
        data: dict[str, object] = {"model": None}
        if "UpsertBucket" in query:
            data = {"upsertBucket": {"bucket": run, "inserted": True}}
        elif "Viewer" in query:
            data = {"viewer": viewer}
        elif "ServerFeatures" in query:
            data = {"serverInfo": {"features": []}}
        body = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_of_a_run_costs_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    logger = build_wandb_logger(
        project="recon", save_dir=tmp_path, settings={"finish_timeout": 3.0}
    )
    assert logger.experiment.settings.mode == "online"
    began = time.monotonic()
    for step in range(20):
        if step == 10:
            server.shutdown()
            server.server_close()
        logger.log_metrics({"loss": step / 2}, step=step)
    assert time.monotonic() - began < 5  # nothing waits for the network
    logger.close(failed=False)
    assert time.monotonic() - began < 30
    wandb.teardown()
    assert read_run(tmp_path).keys["loss"] == [step / 2 for step in range(20)]
