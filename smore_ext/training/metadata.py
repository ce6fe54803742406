"""What the metadata of a checkpoint say, read once and checked: nothing is built on a key that is not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smore_ext.data import Dataset
from smore_ext.environment import versions
from smore_ext.settings.config import RunConfig
from smore_ext.settings.fields import read_as
from smore_ext.training.checkpoint import CheckpointError
from smore_ext.training.progress import Progress

_MOST_EPOCHS = 10**9
_ALWAYS = ("next_epoch", "steps", "best_epoch", "best_value", "bad_epochs")  # what every version has written


@dataclass(frozen=True)
class DataOf:
    """The data set that a run was trained on."""

    fingerprint: str
    name: str = ""


@dataclass(frozen=True)
class About:
    """What a checkpoint says of its run.

    Attributes:
        config: settings, as `RunConfig.to_dict` gives them, or the flat form of earlier versions.
        data: of what data.
        progress: how far the run was.
        settings_from: where its settings came from; None in checkpoints that do not say.
        versions: of what made it.
        stepped: names of the parameters that the optimizer holds moments of; None in checkpoints that do not say.
    """

    config: dict[str, Any]
    data: DataOf
    progress: Progress
    versions: dict[str, Any] = field(default_factory=dict)
    settings_from: list[str] | None = None
    stepped: list[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, config: RunConfig, dataset: Dataset, progress: Progress, stepped: list[str] | None = None) -> About:
        data = DataOf(dataset.fingerprint, dataset.name)
        return cls(config.to_dict(), data, progress, versions(), list(config.sources), stepped)

    @classmethod
    def read(cls, metadata: Mapping[str, Any], path: Path) -> About:
        """From a checkpoint's metadata. Raises `CheckpointError` that names the key, what is expected and what came."""
        metadata = dict(metadata)
        if isinstance(progress := metadata.get("progress"), dict):
            if lost := [key for key in _ALWAYS if key not in progress]:
                raise CheckpointError(f"{path} is damaged: its metadata: expected progress.{lost[0]}, got nothing")
            metadata["progress"] = Progress.of_any_version(progress)
        try:
            about = read_as(cls, metadata)
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged: its metadata: {error}") from None
        if about.progress.best_epoch >= about.progress.next_epoch:
            raise CheckpointError(
                f"{path} is damaged: its metadata: expected a best epoch before the next, "
                f"{about.progress.next_epoch}, got {about.progress.best_epoch}"
            )
        if about.progress.next_epoch > _MOST_EPOCHS:
            raise CheckpointError(
                f"{path} is damaged: its metadata: expected at most {_MOST_EPOCHS:,} as next_epoch, got "
                f"{about.progress.next_epoch}"
            )
        if about.stepped == [] and about.progress.steps:
            raise CheckpointError(
                f"{path} is damaged: its metadata: expected the parameters that {about.progress.steps:,} steps have "
                f"reached as stepped, got none"
            )
        return about
