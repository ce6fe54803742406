"""Names of SMORE's weights in the published code, and how they map onto ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

# The published model has two modalities; its short names are v(ision) and t(ext).
_SHORT = {"image": "v", "text": "t"}


def official_names(modalities: Sequence[str]) -> dict[str, str]:
    """{our key: published key}. Modalities other than image and text follow the same pattern with their own name."""
    names = {
        "user_embedding.weight": "user_embedding.weight",
        "item_embedding.weight": "item_id_embedding.weight",
        "fusion_filter": "fusion_complex_weight",
    }
    for ending in ("weight", "bias"):
        names[f"fusion_gate.0.{ending}"] = f"gate_f.0.{ending}"
        names[f"fusion_preference_gate.0.{ending}"] = f"gate_fusion_prefer.0.{ending}"
    for m in modalities:
        short = _SHORT.get(m, m)
        names[f"features.{m}"] = f"{m}_embedding.weight"
        names[f"filter.{m}"] = f"{m}_complex_weight"
        names[f"query.{m}.2.weight"] = f"query_{short}.2.weight"
        for ending in ("weight", "bias"):
            names[f"projection.{m}.{ending}"] = f"{m}_trs.{ending}"
            names[f"feature_gate.{m}.0.{ending}"] = f"gate_{short}.0.{ending}"
            names[f"query.{m}.0.{ending}"] = f"query_{short}.0.{ending}"
            names[f"preference_gate.{m}.0.{ending}"] = f"gate_{m}_prefer.0.{ending}"
    return names


def native_state_dict(
    official: Mapping[str, Tensor], own: Mapping[str, Tensor], modalities: Sequence[str]
) -> dict[str, Tensor]:
    """The published state dict under our names. Missing or unknown keys and wrong shapes are named in one error."""
    names = official_names(modalities)
    missing = sorted(set(names.values()) - set(official))
    unknown = sorted(set(official) - set(names.values()))
    shapes = [
        f"{theirs} must have shape {tuple(own[ours].shape)}, got {tuple(official[theirs].shape)}"
        for ours, theirs in names.items()
        if theirs in official and official[theirs].shape != own[ours].shape
    ]
    problems = [f"missing {', '.join(missing)}"] if missing else []
    problems += [f"unknown {', '.join(unknown)}"] if unknown else []
    problems += shapes
    if problems:
        raise ValueError(f"not a state dict of this SMORE: {'; '.join(problems)}")
    return {ours: official[theirs] for ours, theirs in names.items()}
