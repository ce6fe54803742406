"""What the server is asked and what it answers, with the bounds of every field."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MOST_K = 1000  # places of a list
MOST_USERS = 1000  # of a request
MOST_ITEMS = 10_000  # named by a request
BODY = 4 << 20  # bytes


def _number(value: object) -> object:
    if isinstance(value, bool):  # which Python counts as 0 and 1
        raise ValueError("expected a number, got true or false")
    return value


Id = Annotated[str, Field(min_length=1, max_length=512, description="raw id, as in the data")]
K = Annotated[int, Field(ge=1, le=MOST_K, description="most items of a list"), BeforeValidator(_number)]
Part = Annotated[str, Field(min_length=1, max_length=200, description="a part of the embeddings")]


class Question(BaseModel):
    """A field that is not known is an error, not ignored."""

    model_config = ConfigDict(extra="forbid")


class NoQuery(Question):
    """Of routes without parameters."""


class RecommendQuery(Question):
    user: Id
    k: K = 10
    filter_seen: bool = Field(True, description="leave out what the user has had")
    describe: bool = Field(False, description="with the items' texts and images")
    allow: list[Id] | None = Field(
        None, min_length=1, max_length=MOST_K, description="the items that may be recommended"
    )
    deny: list[Id] | None = Field(None, max_length=MOST_K, description="items that may not")


class _Rules(Question):
    k: K = 10
    filter_seen: bool = True
    allow: list[Id] | None = Field(None, min_length=1, max_length=MOST_ITEMS)
    deny: list[Id] | None = Field(None, max_length=MOST_ITEMS)


class RecommendBody(_Rules):
    users: list[Id] = Field(min_length=1, max_length=MOST_USERS)


class NewUserBody(_Rules):
    items: list[Id] = Field(min_length=1, max_length=MOST_ITEMS, description="what the new user has had")


class SimilarQuery(Question):
    item: Id
    k: K = 10
    by: Part | None = None
    describe: bool = False


class ExplainQuery(Question):
    user: Id
    item: Id
    k: int = Field(3, ge=1, le=100, description="nearest items of each part")
    describe: bool = False


class UserQuery(Question):
    k: int = Field(100, ge=1, le=MOST_K, description="most items of the history")
    describe: bool = False


class UsersQuery(Question):
    start: int = Field(0, ge=0, le=2**53, description="users to leave out before")
    k: int = Field(20, ge=1, le=MOST_K)


class Entry(BaseModel):
    """An item, its score, cosine or vote, and how it is shown where that was asked for and is known."""

    item: str
    value: float | None = None
    text: str | None = None
    image: str | None = Field(default=None, description="where its image is")


class UserList(BaseModel):
    user: str
    items: list[Entry]


class Lists(BaseModel):
    lists: list[UserList]


class Items(BaseModel):
    items: list[Entry]


class SimilarItems(BaseModel):
    item: str
    by: str | None
    items: list[Entry]


class Explained(BaseModel):
    user: str
    item: str
    score: float
    seen: bool
    contributions: dict[str, float] = Field(description="by part; their sum is the score")
    nearest: dict[str, list[Entry]] = Field(description="by part, items of the user's that are nearest, or vote most")


class ItemAnswer(BaseModel):
    item: str
    interactions: int = Field(description="users who have had it")
    text: str | None
    image: str | None


class History(BaseModel):
    user: str
    interactions: int
    items: list[Entry]


class Users(BaseModel):
    count: int
    users: list[str]


class Health(BaseModel):
    status: str
    model: str
    dataset: str
    fingerprint: str = Field(description="of the data that the model was trained on")
    users: int
    items: int
    parts: list[str] = Field(description="by which items may be compared; none of a model of weights between items")
    loaded: float = Field(description="seconds since 1970")
    changes: int = Field(description="models that took over since the start")
    error: str | None = Field(description="why the newest file is not the model, if it is not")


class Problem(BaseModel):
    """What is wrong with a request."""

    detail: str
