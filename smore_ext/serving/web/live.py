"""The model that answers now, and its successor: a file that changed is loaded beside it, then takes its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smore_ext.serving.catalogue import Catalogue
from smore_ext.serving.served import Served

Load = Callable[[], tuple[Served, Catalogue]]
Mark = tuple[int, int, int]  # what of a file changes with it


@dataclass(frozen=True)
class Loaded:
    """A model with what is shown of its items, and when it came, in seconds since 1970."""

    model: Served
    catalogue: Catalogue
    at: float


class Live:
    """Holds what answers. A request takes `now` once and keeps it, so that a change drops and mixes nothing.

    Args:
        load: reads the model anew. Its errors at the start are the caller's; later ones are kept in `error`, and the
            model that there is goes on.
        watched: the file whose change means a new model; None: there is none.
    """

    def __init__(self, load: Load, watched: Path | None = None) -> None:
        self._load, self._watched = load, watched
        self._mark = self._seen()
        self.now = self._loaded()
        self.error: str | None = None
        self.changes = self.failures = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def refresh(self) -> bool:
        """Loads the model if its file is another one now; whether it took over."""
        mark = self._seen()
        if mark is None or mark == self._mark:
            return False
        self._mark = mark  # a file that cannot be loaded is not tried again before it changes
        try:
            self.now = self._loaded()
        except Exception as error:  # whatever is wrong with a file, the server goes on
            self.error, self.failures = " ".join(str(error).split()) or type(error).__name__, self.failures + 1
            return False
        self.error, self.changes = None, self.changes + 1
        return True

    def watch(self, seconds: float) -> None:
        """Looks at the file every so often, in a thread of its own, until `close`."""

        def run() -> None:
            while not self._stop.wait(seconds):
                self.refresh()

        self._thread = threading.Thread(target=run, name="model watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1)

    def _loaded(self) -> Loaded:
        model, catalogue = self._load()
        model.warm_up()  # what the first request would wait for
        return Loaded(model, catalogue, time.time())

    def _seen(self) -> Mark | None:
        try:
            found = self._watched.stat() if self._watched else None
        except OSError:  # being replaced, or gone: what is loaded stays
            return None
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
