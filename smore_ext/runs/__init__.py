"""A run folder, from settings to results."""
