"""Devices are found by name, or the error says why not and what to do."""

import pytest
import torch

from recon.utils.device import resolve_device


def test_names_and_devices_are_accepted() -> None:
    for name in ("cpu", "CPU", " cpu ", torch.device("cpu")):
        assert resolve_device(name) == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("built", "count", "name", "message"),
    [
        (
            False,
            0,
            "cuda",
            "device=cuda: unavailable: this torch is built without CUDA: use",
        ),
        (True, 0, "cuda:0", "device=cuda:0: unavailable: torch finds no GPU on this machine: use"),
        (True, 1, "cuda:1", "this machine has 1 GPU, numbered from cuda:0"),
        (True, 2, "7", "device=7: unavailable: this machine has 2 GPUs, numbered from cuda:0"),
    ],
)
def test_missing_gpus_are_explained(
    built: bool, count: int, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ValueError, match=message) as caught:
        resolve_device(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device=gpu: unknown device, a GPU is device=cuda"),
        ("mps", "device=mps: unavailable: this is not a Mac"),
        ("foo", r"device=foo: unavailable \(.*\): choose one of auto, cpu, cuda, cuda:0, mps"),
        ("cpu:x", r"device=cpu:x: unavailable \("),
        ("", r"device=: unavailable \("),
        (None, r"device=None: unavailable \("),
        ("meta", "device=meta: holds no values"),
    ],
)
def test_other_names_are_refused_in_one_line(
    name: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message) as caught:
        resolve_device(name)
    assert str(caught.value).isprintable()
