"""Experiments of many runs: comparisons of models."""

from smore_ext.experiments.comparison import Comparison, Row, compare, plan

__all__ = ["Comparison", "Row", "compare", "plan"]
