"""How many connections, and how many opening handshakes in a second, an application accepts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer

from tests import support
from tests.conftest import Log
from tests.peer import end, opening_request, raw_client, unanswered_client
from tests.support import Echo, serving, until
from tornado_ws import HandshakeRejectedError, websocket_connect


async def refused(url: str) -> int:
    """Be refused, and return the seconds after which to come back."""
    async with unanswered_client(url) as client:
        await client.send(opening_request(url))
        await client.receive_head()
        assert client.status == 503
        return int(client.header("Retry-After") or 0)


@pytest.mark.gen_test
async def test_no_more_connections_than_the_application_wants() -> None:
    async with serving(Echo, websocket_max_connections=2) as url, raw_client(url) as first:
        async with raw_client(url) as second:
            waits = {await refused(url) for _ in range(20)}
            assert min(waits) >= 1
            assert max(waits) <= 10
            assert len(waits) > 1
            with pytest.raises(HandshakeRejectedError, match="503"):
                await websocket_connect(url)
            await end(second)

        async def is_accepted() -> bool:
            async with unanswered_client(url) as client:
                await client.send(opening_request(url))
                await client.receive_head()
                return client.status == 101

        # One has gone, and may come again.
        while not await is_accepted():
            pass
        await end(first)


@pytest.mark.gen_test
async def test_no_more_handshakes_in_a_second_than_the_application_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("tornado_ws.server.admission.time", SimpleNamespace(monotonic=lambda: now[0]))
    async with serving(Echo, websocket_max_handshakes_per_second=2) as url:
        for pause, accepted in ((0.0, 2), (0.4, 0), (0.1, 1), (100.0, 2)):
            now[0] += pause
            for _ in range(accepted):
                async with raw_client(url) as client:
                    assert client.status == 101
            await refused(url)


async def asked(url: str) -> tuple[int, int]:
    """Ask as a page does that was refused; return the status, and the seconds after which to come back."""
    http = url.replace("ws:", "http:")
    answer = await AsyncHTTPClient(force_instance=True).fetch(http, raise_error=False)
    return answer.code, int(answer.headers.get("Retry-After", "0"))


@pytest.mark.gen_test
async def test_a_request_that_is_no_handshake_is_told_when_handshakes_are_accepted_again() -> None:
    async with serving(Echo, websocket_max_connections=1) as url:
        assert await asked(url) == (400, 0)
        async with raw_client(url) as client:
            status, seconds = await asked(url)
            assert status == 503
            assert 1 <= seconds <= 10
            await end(client)


@pytest.mark.gen_test
async def test_such_a_request_takes_nothing_from_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tornado_ws.server.admission.time", SimpleNamespace(monotonic=lambda: 1000.0))
    async with serving(Echo, websocket_max_handshakes_per_second=2) as url:
        assert [(await asked(url))[0] for _ in range(5)] == [400] * 5
        for _ in range(2):
            async with raw_client(url) as client:
                assert client.status == 101
        assert (await asked(url))[0] == 503


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["websocket_max_connections", "websocket_max_handshakes_per_second"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "10", True])
async def test_a_wrong_setting_is_named(name: str, value: Any, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ours would say so before.
    monkeypatch.setattr(support, "HTTPServer", HTTPServer)
    async with serving(Echo, **{name: value}) as url:
        with pytest.raises(HandshakeRejectedError, match="500"):
            await websocket_connect(url)
        await until(lambda: any(record.exc_info for record in log.records))
    (record,) = (record for record in log.records if record.exc_info)
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == f"{name} is {value!r}; it has to be a whole number above 0, or None"
