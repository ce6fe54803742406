"""A trained model behind HTTP: answers in JSON by raw ids, and a page to look at them. Needs the extra `serve`."""

from smore_ext.serving.web.app import create_app
from smore_ext.serving.web.live import Live

__all__ = ["Live", "create_app"]
