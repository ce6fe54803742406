"""The routes. Each takes the model of this moment, asks it, and spells the answer.

Single lists are computed where they are asked for, as that takes less than handing them to a thread; lists of many
users, and files, are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from smore_ext.data.dataset import DatasetError
from smore_ext.prepare.content import IMAGES
from smore_ext.serving.served import Id, QuestionError, Similar
from smore_ext.serving.web import answers
from smore_ext.serving.web.asked import described, query
from smore_ext.serving.web.batches import Batches
from smore_ext.serving.web.guard import Guard, Metrics, Token
from smore_ext.serving.web.live import Live, Loaded
from smore_ext.version import __version__

PAGE = Path(__file__).parent / "page"
_WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.Problem, "description": text}
    for status, text in (
        (401, "No token, or a wrong one"),
        (404, "An id that the data lacks"),
        (409, "Fields that leave no item, or name a part that the model lacks"),
        (422, "A wrong field"),
    )
}
_REFUSED: dict[int | str, dict[str, Any]] = {  # in JSON where the answer itself is not
    401: {"description": "No token, or a wrong one", "content": {"application/json": {"schema": {"type": "object"}}}}
}
_NO_PARAMETERS: dict[str, Any] = {
    "description": "A parameter",
    "content": {"application/json": {"schema": {"type": "object"}}},
}
_TOO_LONG: dict[int | str, dict[str, Any]] = {
    413: {"model": answers.Problem, "description": f"A body of more than {answers.BODY:,} bytes"}
}
_UNREADABLE: dict[int | str, dict[str, Any]] = {
    400: {"model": answers.Problem, "description": "A body that is no JSON"}
}
_FIELDS: tuple[str, ...] = ("path", "query", "body")
ItemPath = Annotated[str, answers.Id.__metadata__[0]]
Recommend = Annotated[answers.RecommendQuery, Depends(query(answers.RecommendQuery))]
SimilarTo = Annotated[answers.SimilarQuery, Depends(query(answers.SimilarQuery))]
Explain = Annotated[answers.ExplainQuery, Depends(query(answers.ExplainQuery))]
OfUser = Annotated[answers.UserQuery, Depends(query(answers.UserQuery))]
Nothing = Depends(query(answers.NoQuery))
SomeUsers = Annotated[answers.UsersQuery, Depends(query(answers.UsersQuery))]


def create_app(live: Live, token: str | None = None, hosts: Sequence[str] | None = None) -> FastAPI:
    """The application, for any ASGI server.

    Args:
        live: what answers.
        token: what requests must carry as a bearer; None: nothing.
        hosts: names by which it may be asked, so that another page in the browser cannot; None: any.
    """
    metrics = Metrics(live)
    app = FastAPI(
        title="smore_ext",
        version=__version__,
        description="What a trained model recommends, what is similar, and why. Ids are those of the data.",
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
    )
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.add_middleware(Guard, metrics=metrics)  # the last one is the outermost: what is refused counts too
    app.add_exception_handler(RequestValidationError, _wrong_field)
    app.add_exception_handler(DatasetError, _unknown)
    app.add_exception_handler(QuestionError, _wrong_value)
    guarded = [] if token is None else [Depends(Token(token))]
    batches = Batches()

    def asking(model: type[BaseModel] | None = None, body: bool = False) -> dict[str, Any]:
        """What routes share: their problems, and the parameters of their query."""
        problems = _WRONG | (_TOO_LONG | _UNREADABLE if body else {})
        extra = None if model is None else described(model)
        shared = {"responses": problems, "dependencies": guarded, "openapi_extra": extra}
        return shared | {"response_model_exclude_none": True}

    @app.get("/recommend", **asking(answers.RecommendQuery))
    async def recommend(asked: Recommend) -> answers.UserList:
        """The items ranked first for a user, best first."""
        now = live.now
        if asked.allow is None and not asked.deny:
            found = await batches.best(now.model, now.model.user_number(asked.user), asked.k, asked.filter_seen)
        else:
            rules = asked.k, asked.filter_seen, asked.allow, asked.deny
            (found,) = now.model.recommend([asked.user], *rules).values()
        return answers.UserList(user=asked.user, items=_entries(now, found, asked.describe))

    @app.post("/recommend/users", **asking(body=True))
    def recommend_many(body: Annotated[answers.RecommendBody, Body()]) -> answers.Lists:
        """The same for many users."""
        now = live.now
        lists = now.model.recommend(body.users, body.k, body.filter_seen, body.allow, body.deny)
        return answers.Lists(
            lists=[answers.UserList(user=str(user), items=_entries(now, found)) for user, found in lists.items()]
        )

    @app.post("/recommend/new-user", **asking(body=True))
    def recommend_new(body: Annotated[answers.NewUserBody, Body()]) -> answers.Items:
        """For somebody whom the model does not know, by what they have had."""
        now = live.now
        found = now.model.recommend_for(body.items, body.k, body.filter_seen, body.allow, body.deny)
        return answers.Items(items=_entries(now, found))

    @app.get("/similar", **asking(answers.SimilarQuery))
    async def similar(asked: SimilarTo) -> answers.SimilarItems:
        """The items that are most like one, by a part of the embeddings or by all."""
        now = live.now
        (found,) = now.model.similar([asked.item], asked.k, asked.by).values()
        return answers.SimilarItems(item=asked.item, by=asked.by, items=_entries(now, found, asked.describe))

    @app.get("/explain", **asking(answers.ExplainQuery))
    async def explain(asked: Explain) -> answers.Explained:
        """What a score is made of, and which of the user's items are nearest to the item."""
        now = live.now
        found = now.model.explain(asked.user, asked.item, asked.k)
        return answers.Explained(
            user=asked.user,
            item=asked.item,
            score=found.score,
            seen=found.seen,
            contributions=found.contributions,
            nearest={name: _entries(now, near, asked.describe) for name, near in found.nearest.items()},
        )

    @app.get("/items/{item:path}", responses=_WRONG, dependencies=[*guarded, Nothing])
    async def item_of(item: ItemPath) -> answers.ItemAnswer:
        """An item: how it is shown, and how many users have had it."""
        now = live.now
        count = now.model.interactions_of(item)
        return answers.ItemAnswer(
            item=item, interactions=count, text=now.catalogue.text(item), image=_image_of(now, item)
        )

    @app.get("/users", **asking(answers.UsersQuery))
    async def users(asked: SomeUsers) -> answers.Users:
        """Users that the model knows, by number."""
        model = live.now.model
        known = model.trained.nonzero()[:, 0]
        some = known[asked.start : asked.start + asked.k].tolist()
        return answers.Users(count=len(known), users=[str(model.user(number)) for number in some])

    @app.get("/users/{user:path}", **asking(answers.UserQuery))
    async def user_of(user: ItemPath, asked: OfUser) -> answers.History:
        """What a user has had."""
        now = live.now
        history = now.model.history(user)
        some = _entries(now, history[: asked.k], asked.describe)
        return answers.History(user=user, interactions=len(history), items=some)

    @app.get(
        "/images/{item:path}",
        responses=_WRONG | {200: {"content": {form: {} for form in sorted(set(IMAGES.values()))}}},
        response_class=FileResponse,
        dependencies=[*guarded, Nothing],
    )
    def image(item: ItemPath) -> FileResponse:
        """The image of an item."""
        path = live.now.catalogue.image(item)
        if path is None or not path.is_file():
            raise HTTPException(404, f"item: expected one with an image, got {item[:80]!r}")
        return FileResponse(path, media_type=IMAGES[path.suffix.lower()])

    @app.get("/health", responses={422: _WRONG[422]}, dependencies=[Nothing])
    async def health() -> answers.Health:
        """Which model answers."""
        now, about = live.now, live.now.model.about
        return answers.Health(
            status="ok",
            model=about.get("model", ""),
            dataset=about.get("dataset", ""),
            fingerprint=about.get("fingerprint", ""),
            users=int(now.model.trained.sum()),
            items=len(now.model.known),
            parts=list(now.model.part_names),
            loaded=now.at,
            changes=live.changes,
            error=live.error,
        )

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses=_REFUSED | {422: _NO_PARAMETERS},
        dependencies=[*guarded, Nothing],
    )
    async def show_metrics() -> PlainTextResponse:
        """Counts and times, for Prometheus."""
        return PlainTextResponse(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE))
    return app


def _entries(now: Loaded, found: Iterable[Similar] | Iterable[Id], describe: bool = False) -> list[answers.Entry]:
    out = []
    for entry in found:
        item, value = (entry.item, entry.value) if isinstance(entry, Similar) else (entry, None)
        shown = answers.Entry(item=str(item), value=value)
        if describe:
            shown.text, shown.image = now.catalogue.text(item), _image_of(now, item)
        out.append(shown)
    return out


def _image_of(now: Loaded, item: Id) -> str | None:
    return None if now.catalogue.image(item) is None else f"/images/{quote(str(item), safe='')}"


def _problem(status: int, detail: str) -> JSONResponse:
    """As FastAPI spells its own."""
    return JSONResponse({"detail": detail}, status)


async def _wrong_field(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _problem(422, f"body: expected JSON, got: {first['ctx']['error']} at character {first['loc'][-1]}")
    where = ".".join(str(part) for part in first["loc"] if part not in _FIELDS)
    got = repr(first.get("input"))
    return _problem(422, f"{where or 'request'}: {first['msg']}, got {got if len(got) <= 80 else got[:80] + '...'}")


async def _unknown(_: Request, error: Exception) -> JSONResponse:
    return _problem(404, str(error))


async def _wrong_value(_: Request, error: Exception) -> JSONResponse:
    return _problem(409, str(error))
