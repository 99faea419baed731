"""A program that stays connected: ``python examples/authentication/signed_in_client.py http://127.0.0.1:8888``.

It logs in anew before each attempt to connect, so that a token that has expired meanwhile does no harm, and sends a new
token over the connection when the server asks for one. It ends when a login is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any
from urllib.parse import urlencode

from tornado.escape import json_decode
from tornado.httpclient import AsyncHTTPClient, HTTPError

from tornado_ws import HandshakeRejectedError, WebSocketClosedError, reconnect


class Account:
    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self.form = urlencode({"user": user, "password": password})

    async def token(self) -> str:
        answer = await AsyncHTTPClient().fetch(f"{self.url}/login", method="POST", body=self.form)
        token: str = json_decode(answer.body)["token"]
        return token

    async def credentials(self) -> dict[str, Any]:
        return {"headers": {"Authorization": f"Bearer {await self.token()}"}}


def is_final(error: Exception) -> bool:
    """Whether the login was refused. A refused handshake is tried again, with the next token."""
    return isinstance(error, HTTPError) and error.code == 401 and not isinstance(error, HandshakeRejectedError)


async def main(account: Account, renewals: int | None) -> None:
    url = account.url.replace("http", "ws", 1) + "/header"
    async for conn in reconnect(url, credentials=account.credentials, final=is_final, ping_interval=20):
        try:
            await conn.write_message("hello")
            async for message in conn:
                told = json_decode(message)
                print(message, flush=True)
                if "renew" in told:
                    if renewals == 0:
                        return
                    renewals = None if renewals is None else renewals - 1
                    await conn.write_message({"token": await account.token()})
        except WebSocketClosedError as error:
            print(error, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--user", default="ada")
    parser.add_argument("--password", default="lovelace")
    parser.add_argument("--renewals", type=int, help="how many new tokens to send before it ends (default: no limit)")
    given = parser.parse_args()
    try:
        asyncio.run(main(Account(given.url, given.user, given.password), given.renewals))
    except HTTPError as error:
        sys.exit(f"the login was refused: {error}")
