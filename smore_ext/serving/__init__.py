"""Trained models asked by raw ids: what to recommend, what is similar, and why; with or without the training data."""

from smore_ext.serving.factors import Factors
from smore_ext.serving.files import SUFFIX, write
from smore_ext.serving.item_weights import ItemWeights
from smore_ext.serving.served import Explanation, QuestionError, Served, Similar
from smore_ext.serving.sources import load, servable

__all__ = [
    "SUFFIX",
    "Explanation",
    "Factors",
    "ItemWeights",
    "QuestionError",
    "Served",
    "Similar",
    "load",
    "servable",
    "write",
]
