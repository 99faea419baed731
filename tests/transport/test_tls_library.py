"""Which OpenSSL the native engine uses: the one that made the session, or Python's ssl module in its place."""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from tornado.httpclient import HTTPRequest

from tests.conftest import Tls
from tests.support import Echo, connected, serving, until
from tornado_ws import engine

#: The pure engine has the ssl module alone.
IS_NATIVE = engine.name == "native"

#: Serves, connects over TLS, and prints whether the engine has the session. Arguments: certificates, and the file in
#: which it is to look for OpenSSL.
PROGRAM = """
import asyncio, os, ssl, sys
from tests.transport.test_tls_library import has_session
from tests.conftest import Tls
identity, authority, file = sys.argv[1:]
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(identity)
if file:
    from tornado_ws.engine import _native
    _native.ssl_file = os.fsencode(file)
print(asyncio.run(has_session(Tls(server, ssl.create_default_context(cafile=authority)))))
"""


async def has_session(tls: Tls) -> bool:
    """Echo messages of all sizes over TLS; return whether the client's records were opened by the engine itself."""
    async with serving(Echo, ssl_options=tls.server) as url:
        request = HTTPRequest(url.replace("ws://", "wss://"), ssl_options=tls.client)
        async with connected(request) as conn:
            for size in (0, 1, 20_000, 3_000_000):
                conn.write_message(bytes(size), binary=True)
                assert await conn.read_message() == bytes(size)
            connection: Any = conn.protocol
            await until(lambda: connection._transport)
            return getattr(connection._transport, "has_tls_session", False)


@pytest.mark.gen_test
async def test_a_library_of_another_version_is_left_alone(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await has_session(tls) == IS_NATIVE
    if IS_NATIVE:
        native = importlib.import_module("tornado_ws.engine._native")
        monkeypatch.setattr(native, "openssl_version", native.openssl_version + 1)
        assert not await has_session(tls)


def loaded(name: str) -> list[Path]:
    """Return the files of that name that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({Path(line.split(maxsplit=5)[5]) for line in lines if f"/{name}." in line})


@pytest.mark.gen_test
@pytest.mark.parametrize("which", ["its own", *(["another of the same version"] if IS_NATIVE else [])])
async def test_a_library_that_did_not_make_the_session_is_left_alone(which: str, tmp_path: Path) -> None:
    """In a process of its own: the library is looked for once."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "identity")
    file = ""
    if which != "its own":
        (libssl,) = loaded("libssl")
        file = str(shutil.copy(libssl, tmp_path / "libother.so"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, tmp_path / "identity", tmp_path / "authority", file),
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert said.decode().split() == [str(IS_NATIVE and which == "its own")]
