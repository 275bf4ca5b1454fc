"""Dashboards: runs log every plotted key, and W&B never prompts and never stops a run."""

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
def _isolate_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "nowhere")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield
    wandb.teardown()


def train_tiny(experiment: str, folder: Path, *options: str) -> None:
    """Train a tiny network with the W&B logger."""
    overrides = [f"experiment={experiment}", "debug=tiny", "logger=wandb", *options]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        train(compose("train", [*overrides, f"output_dir={folder}"]))
    wandb.teardown()  # flushes all files, as the end of a program does


@pytest.mark.slow
def test_offline_pretraining_logs_all_dashboard_keys(tmp_path: Path) -> None:
    train_tiny("pretrain_furniture", tmp_path, "logger.log_model=true", "logger.tags=[a,b]",
               "logger.watch=gradients", "logger.watch_every=1", "seed=3")  # fmt: skip
    assert check_run(tmp_path) == []
    recorded = read_run(tmp_path)
    assert (recorded.project, recorded.group, recorded.tags) == (
        "recon",
        "pretrain_furniture",
        ["a", "b"],
    )
    assert recorded.config["seed"] == 3
    assert recorded.config["mask"]["ratio"] == 0.3
    assert any(key.startswith("gradients/model.encoder") for key in recorded.keys)
    assert any(name.startswith("model-") for name in recorded.artifacts)
    assert "object3D-file" in recorded.keys["rebuilt/0/truth"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "option"),
    [("finetune_furniture", "eval.votes=0"), ("partseg_furniture", "data.num_points=64")],
)
def test_finetuning_logs_all_dashboard_keys(experiment: str, option: str, tmp_path: Path) -> None:
    train_tiny(experiment, tmp_path, option)
    missing = check_run(tmp_path)
    assert [line for line in missing if "best" not in line] == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_workspace_and_report_contain_every_panel(name: str) -> None:
    panels = [panel for panels in DASHBOARDS[name].values() for panel in panels]
    built = [p for section in build_workspace(name, "me", "recon").sections for p in section.panels]
    grids = [
        block for block in build_report(name, "me", "recon").blocks if hasattr(block, "panels")
    ]
    for shown in (built, [p for grid in grids for p in grid.panels]):
        assert [p.title for p in shown] == [panel.title for panel in panels]


def test_unreadable_records_raise_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains no .wandb file"):
        read_run(tmp_path)
    (tmp_path / "x.wandb").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"x.wandb: not a .wandb file"):
        read_run(tmp_path)


@pytest.mark.slow
def test_unreachable_server_falls_back_to_offline_logging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:  # nothing listens on this port
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    start = time.monotonic()
    short = {"init_timeout": 2.0, "login_timeout": 2.0}
    logger = build_wandb_logger(project="recon", save_dir=tmp_path, settings=short)
    logger.log_metrics({"loss": 0.5}, step=1)
    logger.close(failed=False)
    assert time.monotonic() - start < 60
    wandb.teardown()
    assert "WANDB_MODE" not in os.environ  # the next run of a multirun tries again
    assert "W&B cannot be reached" in capsys.readouterr().out
    assert read_run(tmp_path).keys["loss"] == [0.5]


def test_missing_key_raises_instead_of_prompting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"logger.offline=false: no W&B API key found"):
        build_wandb_logger(offline=False, save_dir=tmp_path)
    with pytest.raises(ValueError, match="watch must be gradients, parameters or all"):
        build_wandb_logger(watch="weights", save_dir=tmp_path)


def test_invalid_settings_raise_and_a_single_tag_becomes_a_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="log_model must be true, false or all, got 'maybe'"):
        build_wandb_logger(log_model="maybe", save_dir=tmp_path)
    with pytest.raises(
        ValueError, match=r"logger.settings.nosuch=1: not accepted by wandb.Settings"
    ):
        build_wandb_logger(settings={"nosuch": 1}, save_dir=tmp_path)
    assert build_wandb_logger(tags="first", save_dir=tmp_path)._wandb_init["tags"] == ["first"]


def test_disabled_wandb_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = build_wandb_logger(project="recon", save_dir=tmp_path)
    logger.log_metrics({"loss": 0.5}, step=1)
    logger.close(failed=False)
    assert not [*tmp_path.rglob("*.wandb")]


@pytest.mark.slow
def test_tensorboard_and_mlflow_log_metrics_and_configuration(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    overrides = ["experiment=pretrain_furniture", "debug=tiny", "~callbacks.report"]
    for name in ("tensorboard", "mlflow"):
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            train(compose("train", [*overrides, f"logger={name}", f"output_dir={tmp_path / name}"]))
    events = EventAccumulator(str(tmp_path / "tensorboard" / "tensorboard")).Reload()
    assert np.isfinite(events.Scalars("train/total")[0].value)
    with sqlite3.connect(tmp_path / "mlflow" / "mlflow.db") as database:
        ((value,),) = database.execute("select value from metrics where key = 'train/total'")
        ((seed,),) = database.execute("select value from params where key = 'seed'")
    assert np.isfinite(value)
    assert seed == "0"


class FakeServer(BaseHTTPRequestHandler):
    """Minimal fake of the W&B server: it answers what a run needs to start online."""

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers.get("content-length", 0)))
        query = json.loads(request).get("query", "") if self.path == "/graphql" else ""
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
def test_server_failure_during_a_run_loses_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    logger = build_wandb_logger(
        project="recon", save_dir=tmp_path, settings={"finish_timeout": 3.0}
    )
    assert logger.experiment.settings.mode == "online"
    start = time.monotonic()
    for step in range(20):
        if step == 10:
            server.shutdown()
            server.server_close()
        logger.log_metrics({"loss": step / 2}, step=step)
    assert time.monotonic() - start < 5  # logging does not wait for the network
    logger.close(failed=False)
    assert time.monotonic() - start < 30
    wandb.teardown()
    assert read_run(tmp_path).keys["loss"] == [step / 2 for step in range(20)]
