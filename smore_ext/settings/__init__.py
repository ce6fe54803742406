"""Settings of a run: one dataclass holds every default; YAML keys and flags are derived from it."""
