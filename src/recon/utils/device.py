"""Find the torch device of a name, and say why a device is unavailable."""

from typing import Any

DEVICE_NAMES = "auto, cpu, cuda, cuda:0, mps"
_NO_GPU = "use device=cpu, or install torch for your GPU (https://pytorch.org/get-started)"


def resolve_device(name: Any) -> Any:
    """Return the torch device of a name, a number of a GPU or a device; `auto` is CUDA if present.

    Raises ValueError that names the value for a device that torch does not know or that this
    machine does not have.
    """
    import torch

    text = str(name).strip().lower()
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text = f"cuda:{text}" if text.isdecimal() else text
    kind = text.partition(":")[0]
    if kind in ("gpu", "nvidia"):
        raise ValueError(f"device={name}: unknown device, a GPU is device=cuda")
    if kind == "cuda" and (reason := _explain_missing_cuda(text)):
        raise ValueError(f"device={name}: unavailable: {reason}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            f"device={name}: unavailable: this is not a Mac with an Apple GPU, or torch is built "
            "without it: use device=cpu"
        )
    try:
        device = torch.empty(0, device=text).device
    except Exception as error:  # torch raises errors of many types
        reason = str(error).split("\n")[0][:200].rstrip(".")
        raise ValueError(
            f"device={name}: unavailable ({reason}): choose one of {DEVICE_NAMES}"
        ) from error
    if device.type == "meta":
        raise ValueError(f"device={name}: holds no values: choose one of {DEVICE_NAMES}")
    return device


def _explain_missing_cuda(text: str) -> str | None:
    """Return why a CUDA device is unavailable, and what to do; None if it is there."""
    import torch

    if not torch.backends.cuda.is_built():
        return f"this torch is built without CUDA: {_NO_GPU}"
    if not torch.cuda.is_available():
        return f"torch finds no GPU on this machine: {_NO_GPU}"
    number, count = text.partition(":")[2], torch.cuda.device_count()
    if number.isdecimal() and int(number) >= count:
        return f"this machine has {count} GPU{'s' * (count > 1)}, numbered from cuda:0"
    return None
