"""Keep frozen modules in evaluation mode during training, and networks during evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning import LightningModule
from torch import nn

from recon.teachers.base import Teacher


def find_frozen_modules(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost frozen modules: teachers, and modules without a trainable parameter.

    Modules that have no parameters at all belong to the module that contains them.
    """
    parameters = [*module.parameters()]
    is_trainable = any(parameter.requires_grad for parameter in parameters)
    if isinstance(module, Teacher) or (parameters and not is_trainable):
        yield module
        return
    for child in module.children():
        yield from find_frozen_modules(child)


class TrainingTask(LightningModule):
    """Base class of tasks: frozen modules train in evaluation mode.

    Their BatchNorm statistics stay fixed, and they have no dropout and no stochastic depth.
    Lightning keeps the mode of each module that it finds, so the mode is set when training and each
    epoch start. A module that is no longer frozen returns to training mode. A network that is in
    evaluation mode as a whole, as `recon.load` returns it, is set to training mode. The mode of
    all other modules is not changed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._set_to_eval: list[nn.Module] = []

    def find_frozen_modules(self) -> list[nn.Module]:
        """Return the modules to keep in evaluation mode; subclasses may add others."""
        return [frozen for child in self.children() for frozen in find_frozen_modules(child)]

    def eval_frozen_modules(self) -> None:
        """Set frozen modules to evaluation mode, and those that were frozen to training mode."""
        frozen = self.find_frozen_modules()
        if self.training:
            for module in {*self._set_to_eval} - {*frozen}:
                module.train()
        for module in frozen:
            module.eval()
        self._set_to_eval = frozen

    def train(self, mode: bool = True) -> "TrainingTask":
        super().train(mode)
        self.eval_frozen_modules()
        return self

    def on_train_start(self) -> None:
        for network in self.children():
            if not network.training:
                network.train()
        self.eval_frozen_modules()

    def on_train_epoch_start(self) -> None:
        self.eval_frozen_modules()


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode; afterwards, restore the mode of each of its modules."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
