"""With a mark for whoever runs the test: pytest-asyncio, or anyio."""

from __future__ import annotations

import pytest
from counter import Counter

from tornado_ws.testing import expect
from tornado_ws.testing.plugin import PairFactory


@pytest.mark.asyncio
async def test_under_pytest_asyncio(ws_pair: PairFactory) -> None:
    client, _ = await ws_pair(Counter)
    await client.write_message("7")
    await expect(client, "7")


@pytest.mark.anyio
async def test_under_anyio(ws_pair: PairFactory) -> None:
    client, _ = await ws_pair(Counter)
    await client.write_message("7")
    await expect(client, "7")
