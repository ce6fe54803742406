"""A served model in the forms of other programs: an index of faiss, a program of torch.export, embeddings, lists."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from smore_ext.runs.exports import write_ids_beside
from smore_ext.serving.factors import Factors
from smore_ext.serving.served import BLOCK, QuestionError, Served
from smore_ext.training.files import replacing

INDEX, PROGRAM = ".faiss", ".pt2"
FORMS = (INDEX, PROGRAM)


def write_index(served: Factors, path: Path) -> dict[str, Tensor]:
    """An exact index of inner products over the items that there are, whose ids are items' numbers; what is in it.

    Asked with a user's embedding it returns `Served.recommend`'s list, where what the user has had is left out by
    `faiss.IDSelectorNot(faiss.IDSelectorBatch(numbers))`. Raises `ImportError` without faiss.
    """
    try:
        import faiss
    except ImportError:
        raise ImportError("an index needs faiss: pip install 'smore-ext[export]'") from None
    items = served.items[served.known.to(served.items.device)].cpu().float()
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(items.shape[1]))
    index.add_with_ids(items.contiguous().numpy(), served.known.numpy())
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))
    return {"items": items, "ids": served.known}


class Scores(nn.Module):
    """Scores [B, I] of users by number, [B] int64."""

    users: Tensor
    items: Tensor

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.register_buffer("users", users)
        self.register_buffer("items", items)

    def forward(self, user: Tensor) -> Tensor:
        return self.users[user] @ self.items.T


def write_program(served: Factors, path: Path) -> dict[str, Tensor]:
    """`Scores` as torch.export has it, for any number of users at once; torch alone reads and runs it."""
    module = Scores(served.users.cpu(), served.items.cpu()).eval()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (torch.zeros(2, dtype=torch.int64),), dynamic_shapes=({0: batch},))
    with warnings.catch_warnings(), replacing(path) as temporary, temporary.open("wb") as file:
        # Users and items may be views of one tensor, which is written once.
        warnings.filterwarnings("ignore", "No complete tensor found")
        torch.export.save(program, file)
    return {"users": served.users, "items": served.items}


def write_form(served: Served, path: Path) -> dict[str, Tensor]:
    """By the ending of the path, which is one of `FORMS`; raw ids by number go beside it, as `<name>.ids.json`.

    Raises `QuestionError` for a model without embeddings.
    """
    if not isinstance(served, Factors):
        raise QuestionError(
            f"{path}: expected a model of embeddings, got {served.about.get('model')} of weights between items: "
            f"--served writes a file that this package serves, --lists its ranked lists"
        )
    tensors = (write_index if path.suffix == INDEX else write_program)(served, path)
    write_ids_beside(path, served)
    return tensors


def ranking_tensors(served: Served, lists: bool = False, k: int = 100) -> dict[str, Tensor]:
    """What `runs.exports.ranking_tensors` makes of a run, of a served model: embeddings, or lists."""
    if isinstance(served, Factors) and not lists:
        return {"users": served.users.cpu(), "items": served.items.cpu()}
    blocks = [served.ranked(users, k) for users in torch.arange(served.seen.n_rows).split(BLOCK)]
    scores, items = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    unknown = ~served.trained[:, None]
    return {"ranked": items.masked_fill(unknown, -1), "scores": scores.masked_fill(unknown, -torch.inf)}
