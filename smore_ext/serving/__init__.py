"""Trained models asked by raw ids: what to recommend, what is similar, and why; with or without the training data."""

from smore_ext.serving.served import Explanation, QuestionError, Served, Similar
from smore_ext.serving.sources import SUFFIX, load, write

__all__ = ["SUFFIX", "Explanation", "QuestionError", "Served", "Similar", "load", "write"]
