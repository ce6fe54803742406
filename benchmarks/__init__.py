"""Benchmarks: a package of the checkout, not of the installed one. Run from its root."""
