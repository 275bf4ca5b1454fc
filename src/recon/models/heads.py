"""What turns features into class scores."""

from torch import nn

HIDDEN, DROPOUT = 256, 0.5


def linear_head(features: int, classes: int) -> nn.Sequential:
    """Return one linear layer; (B, features) -> (B, classes)."""
    return nn.Sequential(nn.Linear(features, classes))


def mlp_head(features: int, classes: int) -> nn.Sequential:
    """Return the released three-layer head; (B, features) -> (B, classes)."""
    layers: list[nn.Module] = []
    for width in (features, HIDDEN):
        layers += [nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*layers, nn.Linear(HIDDEN, classes))
