"""Say which of our options causes an error of Lightning, Hydra, torch or another library."""

import difflib
import inspect
import re
from collections.abc import Callable

MAX_ORIGINAL_CHARS = 140
"""Maximum length of the original message, which is kept in brackets."""

KNOWN_ERRORS: tuple[tuple[str, str], ...] = (
    # Lightning's Trainer
    (
        r"Precision '?(.+?)'? is invalid",
        "trainer.precision={0}: choose 32-true, bf16-mixed, 16-mixed, bf16-true or 64-true",
    ),
    (
        r"\"(\w+)\" not implemented for '(Half|BFloat16)'",
        "trainer.precision: this processor has no {0} in 16 bits: choose trainer.precision=32-true "
        "or bf16-mixed",
    ),
    (
        r"invalid accelerator name: `accelerator='?(.+?)'?`",
        "trainer.accelerator={0}: choose auto, cpu, gpu, cuda or mps",
    ),
    (
        r"torch_xla",
        "trainer.accelerator=tpu: torch_xla is not installed: choose trainer=cpu or gpu",
    ),
    (
        r"`Trainer\(devices=(.+?)\)`",
        "trainer.devices={0}: must be a whole number of at least 1, or auto",
    ),
    (
        r"`devices` selected with|You requested gpu: |invalid device ordinal",
        "trainer.devices: must be a whole number from 1 to the number of devices, or auto",
    ),
    (
        r"invalid strategy name: `strategy='?(.+?)'?`",
        "trainer.strategy={0}: unknown: choose trainer=default, ddp or fsdp, which set it",
    ),
    (
        r"The strategy `(\w+)` requires a GPU",
        "trainer.strategy={0}: needs a GPU: choose trainer=cpu, or trainer=ddp_spawn_debug to test "
        "two processes",
    ),
    (
        r"No supported gpu backend found",
        "trainer.accelerator=gpu: torch finds no GPU on this machine: choose trainer=cpu",
    ),
    (
        r"`Timer\(duration='?(.+?)'?\)`",
        "trainer.max_time={0}: must have the form DD:HH:MM:SS, e.g. trainer.max_time=00:12:00:00",
    ),
    (
        r"has no attribute 'total_seconds'",
        "trainer.max_time: must have the form DD:HH:MM:SS, e.g. trainer.max_time=00:12:00:00",
    ),
    (
        r"`gradient_clip_val` should be an int or a float. Got (.+?)\.?$",
        "trainer.gradient_clip_val={0}: must be a number, or null for no clipping",
    ),
    (
        r"`gradient_clip_algorithm` (\S+) is invalid",
        "trainer.gradient_clip_algorithm={0}: choose norm or value",
    ),
    (
        r"invalid value (\S+) for (\w+), it has to be in",
        "trainer.{1}={0}: must be a share from 0.0 to 1.0, or a whole number of batches",
    ),
    (
        r"`val_check_interval` \((\S+)\) must be less",
        "trainer.val_check_interval={0}: is longer than an epoch: lower it, or use "
        "trainer.check_val_every_n_epoch",
    ),
    (
        r"passing string value for the `profiler`",
        "trainer.profiler: choose simple, advanced or pytorch",
    ),
    (
        r"^'<=' not supported between instances of 'int' and 'str'",
        "trainer.limit_train_batches, limit_val_batches and limit_test_batches: must be numbers",
    ),
    (
        r"^integer modulo by zero$",
        "trainer.check_val_every_n_epoch: must be a whole number of at least 1",
    ),
    (
        r"Cannot use (\w+) callback with Trainer that has no logger",
        "callbacks: {0} needs a logger: set logger=csv, or remove the callback",
    ),
    (
        r"argument '(\w+)' .*must be bool, not (\w+)",
        "an option that is true or false has another value ({0}, {1}): check the options that you "
        "have set",
    ),
    # Callbacks and loggers
    (
        r"`ModelCheckpoint\(monitor='(.+?)'\)` could not find.*?: (\[.*?\])",
        "callbacks.checkpoint.monitor={0}: is not logged: choose one of {1}",
    ),
    (
        r"Early stopping conditioned on metric `(.+?)` which is not available.*?available:? (.*)",
        "the monitor {0} of EarlyStopping is not logged: choose one of {1}",
    ),
    (
        r"`mode` can be (.+?) but got (\w+)",
        "callbacks.checkpoint.mode={1}: choose min or max",
    ),
    (
        r"Invalid value for save_top_k=(-?\d+)",
        "callbacks.checkpoint.save_top_k={0}: must be -1 (all) or a whole number of at least 0",
    ),
    (
        r"logging_interval should be",
        "callbacks.lr_monitor.logging_interval: choose step, epoch or null",
    ),
    (
        r"tensorboardX|Neither `tensorboard`|No module named 'tensorboard'",
        "logger=tensorboard: not installed: pip install 'recon-pointcloud[dashboards]'",
    ),
    (
        r"No module named 'mlflow'|Requirement 'mlflow|`mlflow` is not installed",
        "logger=mlflow: not installed: pip install 'recon-pointcloud[dashboards]'",
    ),
    (
        r"No module named 'wandb'|Requirement 'wandb",
        "logger=wandb: W&B is not installed: pip install wandb",
    ),
    # Optimizer and scheduler
    (r"Invalid beta parameter at index \d: (\S+)", "optimizer.betas: {0} is not in [0, 1)"),
    (r"Invalid learning rate: (\S+)", "optimizer.lr={0}: must be 0 or more"),
    (r"Invalid (weight_decay|epsilon|momentum) value: (\S+)", "optimizer: {0} {1} is not allowed"),
    # Networks and data
    (
        r"Expected more than 1 value per channel when training",
        "data.batch_size: BatchNorm needs at least 2 samples per batch and process: set "
        "data.batch_size=2 or more",
    ),
    (
        r"width (\d+) is not a multiple of the number of heads (\d+)",
        "model.dim={0}: must be a multiple of model.heads={1}",
    ),
    (
        r"cannot pick (\d+) centers from (\d+) points",
        "model.groups={0}: the clouds have only {1} points: raise num_points, or lower "
        "model.groups",
    ),
    (
        r"cannot find (\d+) neighbors among (\d+) points",
        "model.group_size={0}: the clouds have only {1} points: raise num_points, or lower "
        "model.group_size",
    ),
    (
        r"a mask must cover .*it covers \[(\d+).*\] of (\d+)",
        "mask.ratio: masks {0} of {1} patches: at least one and not all must be masked: change "
        "mask.ratio, or raise model.groups",
    ),
    (r"^(val_share|fraction) must be in (.+), got (\S+)", "data.{0}={2}: must be in {1}"),
    (
        r"Interpolation key 'eval\.(\S+?)\.\w+' not found",
        "eval.selection={0}: choose val, last or test",
    ),
    (
        r"mat1 and mat2 shapes cannot be multiplied \((\w+) and (\w+)\)",
        "two layers do not fit together, {0} and {1}: check model.dim, projection_dims and the "
        "widths that you have set",
    ),
    (
        r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\)",
        "widths {0} and {1} do not fit together: check projection_dims, the dim of the teachers "
        "and num_points",
    ),
    (
        r"element 0 of tensors does not require grad",
        "nothing is trained, because all weights are frozen: choose another protocol=...",
    ),
    (
        r"needs samples of at least 2 classes|The number of classes has to be greater than one",
        "the training split has one class only: choose another data.split, or data with classes",
    ),
    # Processes and devices
    (
        r"Expected to have finished reduction in the prior iteration",
        "trainer.strategy: some weights get no gradient: choose trainer=ddp, or "
        "trainer.strategy=ddp_find_unused_parameters_true",
    ),
    (
        r"Torch not compiled with CUDA|Found no NVIDIA driver|No CUDA GPUs are available",
        "torch finds no NVIDIA GPU on this machine: choose trainer=cpu for training, device=cpu in "
        "other programs",
    ),
    (
        r"no kernel image is available",
        "this build of torch does not support the GPU: install the build for its CUDA version, or "
        "choose trainer=cpu",
    ),
    (
        r"CUDA error|CUDNN_STATUS|CUBLAS_STATUS",
        "the GPU reports an error: set CUDA_LAUNCH_BLOCKING=1 to find its step, or choose "
        "trainer=cpu",
    ),
    (
        r"Address already in use|EADDRINUSE",
        "another training uses the port of this one: set MASTER_PORT=<number> before the command",
    ),
    (r"NCCL", "the GPUs cannot communicate: set NCCL_DEBUG=INFO to see why, or trainer.devices=1"),
    (
        r"Too many open files|received 0 items of ancdata",
        "too many files are open: lower data.num_workers, or raise the limit by `ulimit -n 65536`",
    ),
)
"""Patterns in messages of libraries, and what to say instead; `{0}` is the first group."""
_UNEXPECTED_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
_FAILED_IMPORT = re.compile(r"Error (?:loading|locating target) '([\w.]+)'")


def explain_known_error(error: BaseException) -> str | None:
    """Return one line that names our option and the cure, None for an unknown error.

    The start of the original message follows in brackets.
    """
    text = _get_message(error)
    explanation = _explain_argument(text) or _explain_import(text)
    if explanation is not None:
        return explanation
    for pattern, message in KNOWN_ERRORS:
        if match := re.search(pattern, text, re.DOTALL):
            return f"{message.format(*match.groups())} ({_shorten(text)})"
    return None


def _get_message(error: BaseException) -> str:
    """Return the message, for an error of a spawned process that of its last line."""
    text = str(error).strip()
    if type(error).__name__ == "ProcessRaisedException":
        return text.rpartition("\n")[2].partition(": ")[2] or text
    return text


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_ORIGINAL_CHARS else f"{line[:MAX_ORIGINAL_CHARS].rstrip()} ..."


def _explain_argument(text: str) -> str | None:
    """Explain an argument that a class does not have, and suggest the nearest one."""
    match = _UNEXPECTED_ARGUMENT.search(text)
    if match is None:
        return None
    name, argument = match.groups()
    if name == "Trainer":
        from lightning import Trainer

        hint = _suggest(argument, Trainer.__init__)
        return f"trainer.{argument}: Lightning's Trainer has no such option{hint}"
    from torch import optim

    if hasattr(optim, name):
        hint = _suggest(argument, getattr(optim, name).__init__)
        return f"optimizer.{argument}: {name} has no such option{hint}"
    group = "scheduler." if name.endswith(("Scheduler", "LR")) else ""
    return f"{group}{argument}: {name} has no such option: remove it"


def _suggest(argument: str, function: Callable[..., object]) -> str:
    """Return a hint with the nearest name of an argument, or to remove the option."""
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    nearest = difflib.get_close_matches(argument, names, n=1)
    return f": did you mean {nearest[0]}?" if nearest else ": remove it"


def _explain_import(text: str) -> str | None:
    match = _FAILED_IMPORT.search(text)
    if match is None:
        return None
    reason = re.search(r"(?:Error|Exception)\((['\"])(.+?)\1\)", text)
    detail = f" ({reason[2]})" if reason else ""
    return (
        f"{match[1]}: cannot be imported{detail}: check the option ending in _target_ that names "
        "it, and that its module is in the current folder or installed"
    )
