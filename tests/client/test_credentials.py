"""``credentials`` of `reconnect`: what tells a server who asks, new for each attempt."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from tests.client.test_reconnect import Time, exhaust
from tests.conftest import Log
from tests.support import Echo, serving
from tornado_ws import reconnect


class Guarded(Echo):
    """Lets in who has the right token, and takes down what was shown."""

    def initialize(self, calls: list[Any]) -> None:
        self.calls = calls

    def prepare(self) -> None:
        self.calls.append((self.request.headers.get("Authorization"), self.request.headers.get("X-Kept")))
        if self.calls[-1][0] != "Bearer 3":
            self.set_status(401)
            self.finish()


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", ["function", "coroutine function"])
async def test_each_attempt_has_credentials_of_its_own(kind: str) -> None:
    calls: list[Any] = []
    numbers = iter(range(1, 9))

    def credentials() -> Any:
        return {"headers": {"Authorization": f"Bearer {next(numbers)}"}}

    async def fetched() -> Any:
        await asyncio.sleep(0)
        return credentials()

    time = Time()
    get = credentials if kind == "function" else fetched
    async with serving(Guarded, calls=calls) as url:
        arguments: Any = {"headers": {"Authorization": "Bearer 0"}, "final": (), **time.arguments}
        async with contextlib.aclosing(reconnect(url, credentials=get, **arguments)) as connections:  # type: ignore[type-var]
            async for conn in connections:
                await conn.write_message("in")
                assert await conn.read_message() == "in"
                break
    assert [shown for shown, _ in calls] == ["Bearer 1", "Bearer 2", "Bearer 3"]


@pytest.mark.gen_test
async def test_credentials_that_cannot_be_had_now_are_a_failed_attempt(log: Log) -> None:
    attempts: list[int] = []

    def credentials() -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("no token today")
        raise LookupError("no such user")

    with pytest.raises(LookupError):
        await exhaust("ws://127.0.0.1:1", credentials=credentials, **Time().arguments)
    assert len(attempts) == 3
    assert sum("failed: no token today; next in" in line for line in log.lines) == 2


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("credentials", "error", "text"),
    [
        ({"headers": {}}, TypeError, "credentials is of type dict; it has to be a function"),
        (lambda: [("a", "b")], TypeError, "credentials returned a list; it has to return a mapping"),
        (lambda: {"sock": 1, "headers": {}}, ValueError, r"returned \['sock'\]; allowed are cookies, headers, ssl_opt"),
    ],
    ids=["no function", "no mapping", "another name"],
)
async def test_wrong_credentials_are_an_error_at_once(credentials: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        await exhaust("ws://127.0.0.1:1", credentials=credentials)
