"""The process of the peers made by hand: clients to our server, and a server for our clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Coroutine
from typing import Any

from tornado.netutil import bind_sockets

from soak.plans import RAW_CLIENT, Plan
from soak.process import BACKLOG, HOSTS, Driver, run
from soak.raw import Talk
from tests.peer import SMALL_BUFFER, RawPeer, opening_answer, opening_request
from tests.tls_wire import connected

#: What RFC 7692 section 7.1.1 calls it when each message stands alone.
_ALONE = "; client_no_context_takeover; server_no_context_takeover"


class Peers(Driver):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._context = self.client_context()
        self._serving: set[asyncio.Task[None]] = set()

    def takes_part(self, plan: Plan) -> bool:
        return plan.pair == RAW_CLIENT

    async def drive(self, plan: Plan) -> None:
        scheme = "wss" if plan.tls else "ws"
        host, port = self.address(scheme, plan.number)
        sock = socket.socket()
        try:
            if plan.slow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
            peer = await connected(sock, self._context if plan.tls else None, is_client=True)
            await self._talk(peer, plan, f"{scheme}://{host}:{port}/{plan.number}")
        finally:
            sock.close()

    async def _talk(self, peer: RawPeer, plan: Plan, url: str) -> None:
        headers: dict[str, str | None] = {}
        if plan.deflate:
            headers["Sec_WebSocket_Extensions"] = "permessage-deflate" + ("" if plan.takeover else _ALONE)
        if plan.end == "refused":
            headers["Origin"] = "http://elsewhere.example"
        elif plan.end == "bad request":
            headers["Sec_WebSocket_Key"] = "short"
        request = opening_request(url, "GET {path} HTTP/1.1", **headers)
        if plan.end == "cut in the handshake":
            await peer.send(request[: plan.number % len(request)])
            if plan.number % 2:
                peer.reset()
            return
        await peer.send(request)
        await peer.receive_head()
        status = {"refused": 403, "bad request": 400}.get(plan.end, 101)
        if peer.status != status:
            self.failures.add(plan, f"the answer is {peer.head}")
        if peer.status == 101:
            await self.hold()
            await Talk(self, peer, plan, is_client=True).run()

    async def do_listen(self) -> dict[str, list[tuple[str, int]]]:
        addresses: dict[str, list[tuple[str, int]]] = {}
        for kind, context in (("raw ws", None), ("raw wss", self.server_context())):
            for host in HOSTS:
                (sock,) = bind_sockets(0, host, backlog=BACKLOG)
                self._keep(self._accept(sock, context))
                addresses.setdefault(kind, []).append(sock.getsockname())
        return addresses

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _accept(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listening)
            self._keep(self._serve(sock, context))

    async def _serve(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        try:
            peer = await connected(sock, context, is_client=False)
            await peer.receive_head()
            plan = self.plan(int(peer.head.split()[1][1:]))
            await self._answer(peer, plan)
        except ConnectionError:
            # What a client misses by it is seen there.
            pass
        finally:
            sock.close()

    async def _answer(self, peer: RawPeer, plan: Plan) -> None:
        headers: dict[str, str | None] = {}
        if plan.deflate:
            headers["Sec_WebSocket_Extensions"] = "permessage-deflate" + ("" if plan.takeover else _ALONE)
        status = "101 Switching Protocols"
        if plan.end == "refused":
            status, headers = "403 Forbidden", {"Content_Length": "0", "Upgrade": None, "Connection": "close"}
        elif plan.end == "bad answer":
            headers["Sec_WebSocket_Accept"] = "bad"
        answer = opening_answer(peer, status, **headers)
        if plan.end == "reset in the handshake":
            peer.reset()
            return
        if plan.end == "cut in the handshake":
            await peer.send(answer[: plan.number % len(answer)])
            return
        await peer.send(answer)
        if plan.opens:
            await Talk(self, peer, plan, is_client=False).run()
        else:
            # The client has to leave.
            with contextlib.suppress(ConnectionError):
                while await peer.receive_bytes():
                    pass


if __name__ == "__main__":
    run(Peers)
