"""Prints the messages of a feed, from wherever it is reached: ``python examples/client/feed.py URL``.

It goes through the proxy of the environment (``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``) or of ``--proxy``, follows
redirects, and keeps cookies in a file between two runs: a session begun by one is the other's too. It ends with the
feed, or with one line that says who refused what.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from http.cookiejar import LoadError, MozillaCookieJar
from pathlib import Path

from tornado_ws import HandshakeError, ProxyError, WebSocketClosedError, websocket_connect


def load(path: Path) -> MozillaCookieJar:
    jar = MozillaCookieJar(str(path))
    if path.exists():
        # A session's cookies have no date, and are what is wanted here.
        jar.load(ignore_discard=True)
    return jar


async def main(url: str, proxy: str | None, jar: MozillaCookieJar) -> None:
    connecting = websocket_connect(url, proxy=proxy or True, cookies=jar, follow_redirects=True)
    try:
        async with connecting as conn:
            async for message in conn:
                print(message, flush=True)
    finally:
        # Those of a refusal count as well.
        jar.save(ignore_discard=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--proxy", help="in the place of the environment's")
    parser.add_argument("--cookies", type=Path, default=Path("cookies.txt"), help="a file, made where there is none")
    given = parser.parse_args()
    try:
        asyncio.run(main(given.url, given.proxy, load(given.cookies)))
    except ProxyError as error:
        sys.exit(f"the way out is closed: {error}")
    except HandshakeError as error:
        sys.exit(f"the server refused: {error}")
    except (WebSocketClosedError, OSError, ValueError, LoadError) as error:
        sys.exit(str(error))
