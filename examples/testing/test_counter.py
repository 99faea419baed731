"""With pytest alone. Under pytest-asyncio in its "auto" mode these are the same; see the other files for marks."""

from __future__ import annotations

import asyncio

from counter import Counter, make_app

from tornado_ws.testing import expect, expect_close, expect_refused, raw_client, raw_server
from tornado_ws.testing.plugin import Connector, PairFactory, ServerFactory


async def test_numbers_are_added(ws_server: ServerFactory, ws_connect: Connector) -> None:
    conn = await ws_connect(await ws_server(make_app()), "/counter")
    for number, total in ((1, "1"), (2, "3"), (-5, "-2")):
        await conn.write_message(str(number))
        await expect(conn, total)


async def test_text_that_is_no_number_closes_the_connection(ws_pair: PairFactory) -> None:
    client, handler = await ws_pair(make_app(), "/counter")
    await client.write_message("one")
    await expect_close(client, 4000, "no number")
    await expect_close(handler, 4000)


async def test_other_paths_are_refused(ws_server: ServerFactory, ws_connect: Connector) -> None:
    server = await ws_server(make_app())
    await expect_refused(ws_connect(server, "/"), 404)


async def test_a_violation_disturbs_nobody_else(ws_server: ServerFactory, ws_connect: Connector) -> None:
    server = await ws_server(make_app())
    conn = await ws_connect(server, "/counter")
    async with raw_client(f"{server.url}/counter") as peer:
        violation = await peer.violate("text not UTF-8")
        await expect_close(peer, violation.code)
    await conn.write_message("7")
    await expect(conn, "7")


async def test_an_answer_is_counted_while_the_client_does_not_read(ws_pair: PairFactory) -> None:
    client, handler = await ws_pair(Counter, buffer_size=1)
    handler.write_message("7")
    assert handler.ws_connection is not None
    # A frame of 3 bytes, of which the buffer has taken one.
    assert handler.ws_connection.buffered_amount == 2
    await expect(client, "7")


async def test_a_client_of_ours_and_a_server_that_vanishes(ws_connect: Connector) -> None:
    async with raw_server() as server:
        peer, conn = await asyncio.gather(server.accept(), ws_connect(server))
        peer.reset()
        await expect_close(conn, 1006)


async def test_with_both_engines(ws_engine: str, ws_pair: PairFactory) -> None:
    client, _ = await ws_pair(Counter)
    await client.write_message("7")
    await expect(client, "7")
