"""Models by name. Others come by an entry point of the group `smore_ext.models`, or as `package.module:Class`."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from smore_ext.registry import Registry

if TYPE_CHECKING:
    from smore_ext.models.contract import Recommender

DEFAULT_MODEL = "SMORE"


def _wrong(loaded: Any) -> str | None:
    from smore_ext.models.contract import Recommender

    if not (isinstance(loaded, type) and issubclass(loaded, Recommender)):
        return f"must be a subclass of smore_ext.Recommender, got {loaded!r}"
    if not is_dataclass(getattr(loaded, "config_class", None)):
        return "must have a dataclass as its config_class"
    return None


MODELS: Registry[type[Recommender]] = Registry(
    "model",
    "smore_ext.models",
    {
        "SMORE": "smore_ext.models.smore:SMORE",
        "LightGCN": "smore_ext.models.lightgcn:LightGCN",
        "MGCN": "smore_ext.models.mgcn:MGCN",
        "FREEDOM": "smore_ext.models.freedom:FREEDOM",
        "BM3": "smore_ext.models.bm3:BM3",
        "LATTICE": "smore_ext.models.lattice:LATTICE",
        "VBPR": "smore_ext.models.vbpr:VBPR",
        "L3AE": "smore_ext.models.l3ae:L3AE",
        "EASE": "smore_ext.models.ease:EASE",
        "TurboCF": "smore_ext.models.turbo_cf:TurboCF",
        "ItemKNN": "smore_ext.models.itemknn:ItemKNN",
        "Popularity": "smore_ext.models.popularity:Popularity",
    },
    _wrong,
)


def short_name(model: str) -> str:
    """What results and folders call a model: of `package.module:Class` the class."""
    return model.rpartition(":")[2]
