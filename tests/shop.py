"""A small model that is served: factors, parts, raw ids, texts and an image."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

from smore_ext.graph import Graph
from smore_ext.serving import Factors, Served

USERS, ITEMS = 30, 40
ODD = "b/7 <é>&?#%"  # an id that a careless server or page would break at
PIXEL = bytes.fromhex(  # a PNG of one
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cf50f00f0004830180"
    "5d8b5c2f0000000049454e44ae426082"
)


def served_model(seed: int = 0) -> Factors:
    """Users and items of random factors; the last user has no train interaction, item 7 an odd id."""
    generator = torch.Generator().manual_seed(seed)
    parts = {name: torch.randn(ITEMS, 8, generator=generator) for name in ("behaviour", "text")}
    had = (torch.rand(USERS, ITEMS, generator=torch.Generator().manual_seed(1)) < 0.15).nonzero().T
    trained = torch.arange(USERS) < USERS - 1
    return Factors(
        Graph.from_edges(had[0], had[1], None, (USERS, ITEMS)),
        torch.arange(ITEMS),
        trained,
        tuple(f"u{n}" for n in range(USERS)),
        tuple(ODD if n == 7 else f"b{n}" for n in range(ITEMS)),
        {"model": "Planted", "dataset": "shop", "fingerprint": f"{seed:064}"},
        users=torch.randn(USERS, 8, generator=generator),
        items=parts["behaviour"] + parts["text"],
        parts=parts,
    )


def relabelled(model: Served, **changes: str) -> Served:
    return dataclasses.replace(model, about=model.about | changes)


def write_catalogue(folder: Path) -> Path:
    """Texts of some items, one of which would be a script, and an image."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"b{n}": f"Item number {n}" for n in range(0, ITEMS, 2)} | {"b2": "<script>alert(1)</script>", "b4": ""}
    rows = [{"item": item, "text": text} for item, text in texts.items()]
    (folder / "item_texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "b3.png").write_bytes(PIXEL)
    (folder / "images" / "notes.txt").write_text("no image")
    return folder
