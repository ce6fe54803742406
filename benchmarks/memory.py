"""This process's memory as Linux reports it."""

from __future__ import annotations

from pathlib import Path


def status(key: str) -> float:
    """A figure of /proc/self/status in MB: "VmRSS" (now) or "VmHWM" (the peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def restart_peak() -> float:
    """Lets the peak start again from what is held now, and returns that, MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak() -> float:
    """The largest memory held since `restart_peak`, MB."""
    return status("VmHWM")
