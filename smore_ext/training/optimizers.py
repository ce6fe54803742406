"""What steps the weights, and at which rate."""

from __future__ import annotations

import torch
from torch import Tensor

from smore_ext.models import FactoredAdam, Recommender
from smore_ext.settings.config import TrainConfig


def learning_rate(cfg: TrainConfig, epoch: int) -> float:
    """Rate in epoch `epoch` (from 0): `lr` times `lr_decay^(epoch / lr_decay_epochs)`, set once per epoch."""
    return cfg.lr * cfg.lr_decay ** (epoch / cfg.lr_decay_epochs)


def adam(model: Recommender, lr: float, fused: bool, capturable: bool = False) -> torch.optim.Adam:
    """Adam over what is trained; with `fused`, feature tables are stepped without forming their gradient.

    With `capturable`, a captured step may hold its step: the rate is then a tensor beside the parameters.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = torch.tensor(lr, dtype=torch.float32, device=trainable[0].device) if capturable else lr
    if fused and (tables := model.feature_tables()):
        return FactoredAdam(trainable, tables, lr=rate, capturable=capturable)
    return torch.optim.Adam(trainable, lr=rate, fused=fused, capturable=capturable)


def state_like(parameter: Tensor) -> dict[str, Tensor]:
    """What Adam, in all its forms here, holds of a parameter that it has stepped: shapes and dtypes."""
    moment = torch.empty_like(parameter, device="meta")
    step = torch.empty((), dtype=torch.float32, device="meta")
    return {"step": step, "exp_avg": moment, "exp_avg_sq": moment}


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of all parameters; a captured step reads it where it stands."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
