"""Settings of a model by the names that other programs have for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from smore_ext.settings.fields import aliases_of, settings_of


def own_settings(cls: type, values: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """`values` as settings of the dataclass `cls`: those that it has, under its names and of its types.

    A setting that maps modalities is also known by one name for each (`image_knn_k`). A name of its own comes before
    one of others.

    Args:
        values: anything with `values[name]`; None stands for nothing.
        names: those to ask for; None: all that mean something here.

    Raises:
        ConfigError: a value of a wrong type.
    """
    settings = settings_of(cls)
    aliases = {name: name for name in settings} | aliases_of(settings.values())
    out: dict[str, Any] = {}
    for name, own in aliases.items():
        value = values[name] if names is None or name in names else None
        if value is None or (own in out and not name.endswith(f"_{own}")):
            continue
        if name != own and name.endswith(f"_{own}"):  # of one modality
            given = out.get(own)
            out[own] = (given if isinstance(given, dict) else {}) | {name.removesuffix(f"_{own}"): value}
        else:
            out[own] = value
    return {own: settings[own].convert(value, own) for own, value in out.items()}
