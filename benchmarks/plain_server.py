"""The peer of `serve_load`: recommendations over HTTP as they are written in an afternoon, in plain PyTorch.

The same web server and framework as ours; a product with all items, seen ones set to minus infinity, `topk`.
`python -m benchmarks.plain_server FILE.safetensors PORT`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, HTTPException

from smore_ext import serving


def plain_app(path: Path) -> FastAPI:
    served = serving.load(path)
    users, items = served.users, served.items
    rows = served.seen.rowptr.tolist()
    seen = [served.seen.col[begin:end].long() for begin, end in zip(rows, rows[1:], strict=False)]
    number = {raw: n for n, raw in enumerate(served.user_ids or ())}
    app = FastAPI()

    @app.get("/recommend")
    def recommend(user: str, k: int = 10) -> dict[str, Any]:
        if user not in number:
            raise HTTPException(404)
        with torch.no_grad():
            scores = users[number[user]] @ items.T
            scores[seen[number[user]]] = -torch.inf
            value, index = scores.topk(k)
        assert served.item_ids is not None
        found = zip(index.tolist(), value.tolist(), strict=True)
        return {"user": user, "items": [{"item": served.item_ids[i], "value": v} for i, v in found]}

    return app


if __name__ == "__main__":
    torch.set_num_threads(1)
    uvicorn.run(plain_app(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="warning", access_log=False)
