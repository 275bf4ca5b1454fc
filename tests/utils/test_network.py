"""Whether a server answers is known at once."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from huggingface_hub import constants

from recon.checkpoints.locate import locate_checkpoint
from recon.teachers.image import TimmImageTeacher
from recon.teachers.text import OpenClipTextTeacher
from recon.utils.network import cached_hub_files, explain_unreachable, explain_unreachable_hub


class Refusing(BaseHTTPRequestHandler):
    """Answer every request with an error."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:  # noqa: N802
        self.asked.append(self.path)
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a port on which nothing listens; the Hub is said to be there."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return address


@pytest.fixture
def silent_port() -> Iterator[str]:
    """Return the address of a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_any_answer_of_a_server_counts(closed_port: str) -> None:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert explain_unreachable(f"http://127.0.0.1:{server.server_port}/a") is None
    finally:
        server.shutdown()
        server.server_close()
    assert explain_unreachable(closed_port) == "Connection refused"


def test_a_silent_server_is_left_after_the_time_limit(silent_port: str) -> None:
    started = time.monotonic()
    assert explain_unreachable(silent_port, timeout=0.2) is not None
    assert time.monotonic() - started < 2


def test_without_a_network_teachers_and_hub_checkpoints_fail_at_once_with_the_option(
    closed_port: str, caplog: pytest.LogCaptureFixture
) -> None:
    started, reason = time.monotonic(), f"{closed_port} cannot be reached: Connection refused"
    local = r"give a local file, teacher\.{}\.weights=<file>"
    with pytest.raises(OSError, match=f"{reason}.*{local.format('text')}"):
        OpenClipTextTeacher("ViT-B-32-quickgelu", 512, weights="openai")
    with pytest.raises(OSError, match=f"{reason}.*{local.format('image')}"):
        TimmImageTeacher("vit_tiny_patch16_224", 192)
    with pytest.raises(FileNotFoundError, match=f"owner/name: no such file, .*{reason}"):
        locate_checkpoint("owner/name")
    assert time.monotonic() - started < 10
    assert not caplog.records


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    assert explain_unreachable_hub() == "HF_HUB_OFFLINE is set"


def test_settings_of_the_hub_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    before = logging.root.manager.disable
    with cached_hub_files(only=True):
        assert constants.HF_HUB_OFFLINE
        assert logging.root.manager.disable >= logging.ERROR
    assert not constants.HF_HUB_OFFLINE
    assert logging.root.manager.disable == before
