"""Classification heads."""

from torch import nn

HIDDEN_DIM, DROPOUT = 256, 0.5


def linear_head(in_features: int, num_classes: int) -> nn.Sequential:
    """Return one linear layer; (B, features) -> (B, classes)."""
    return nn.Sequential(nn.Linear(in_features, num_classes))


def mlp_head(in_features: int, num_classes: int) -> nn.Sequential:
    """Return the released three-layer head; (B, features) -> (B, classes)."""
    layers: list[nn.Module] = []
    for width in (in_features, HIDDEN_DIM):
        layers += [
            nn.Linear(width, HIDDEN_DIM),
            nn.BatchNorm1d(HIDDEN_DIM),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
        ]
    return nn.Sequential(*layers, nn.Linear(HIDDEN_DIM, num_classes))
