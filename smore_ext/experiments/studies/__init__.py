"""The experiments by name, in the order of the report; each module asks one question."""

from smore_ext.experiments.studies import (
    attention,
    claims,
    correlated_noise,
    denoisers,
    denoising,
    draws,
    feature_quality,
    frequencies,
    layers,
    modalities,
    settings,
)
from smore_ext.experiments.study import Study

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY
    for module in (
        denoising,
        denoisers,
        frequencies,
        modalities,
        feature_quality,
        layers,
        attention,
        correlated_noise,
        settings,
        draws,
        claims,
    )
}

__all__ = ["STUDIES"]
