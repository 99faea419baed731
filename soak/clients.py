"""The process of our clients."""

from __future__ import annotations

import asyncio
from typing import Any

from tornado.httpclient import HTTPError, HTTPRequest
from tornado.iostream import StreamClosedError

import tornado_ws
from soak.checks import Receiver
from soak.plans import OURS, RAW_CLIENT, TO_CLIENT, TO_SERVER, Plan
from soak.process import NEVER, Driver, run
from tornado_ws import WebSocketClientConnection, WebSocketClosedError

#: What `websocket_connect` may raise, by how the handshake fails.
_REFUSALS: dict[str, tuple[type[Exception], ...]] = {
    "refused": (tornado_ws.HandshakeRejectedError,),
    "bad answer": (tornado_ws.InvalidHandshakeError,),
    "cut in the handshake": (StreamClosedError, HTTPError, OSError),
    "reset in the handshake": (StreamClosedError, HTTPError, OSError),
}


class Clients(Driver):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._context = self.client_context()

    def takes_part(self, plan: Plan) -> bool:
        return plan.pair != RAW_CLIENT

    def _connect(self, plan: Plan, callback: Any) -> Any:
        scheme = "wss" if plan.tls else "ws"
        host, port = self.address(scheme if plan.pair == OURS else f"raw {scheme}", plan.number)
        request = HTTPRequest(
            f"{scheme}://{host}:{port}/{plan.number}",
            headers={"Origin": "http://elsewhere.example"} if plan.end == "refused" else None,
            ssl_options=self._context if plan.tls else None,
            connect_timeout=NEVER,
            request_timeout=NEVER,
        )
        has_no_pong = plan.end == "no pong"
        return tornado_ws.websocket_connect(
            request,
            on_message_callback=callback if plan.callback else None,
            compression_options=plan.compression,
            ping_interval=0.1 if has_no_pong else 2 if plan.number % 4 == 1 else None,
            keepalive_timeout=0.1 if has_no_pong else NEVER,
            close_timeout=0.1 if plan.end == "no answer" else NEVER,
        )

    async def drive(self, plan: Plan) -> None:
        receiver = Receiver(plan, TO_CLIENT, self.failures)
        changed = asyncio.Event()
        ended = asyncio.Event()

        def take(message: str | bytes | None) -> None:
            self.progress += 1
            if message is None:
                ended.set()
            else:
                receiver.take(message)
            changed.set()

        try:
            conn = await self._connect(plan, take)
        except _REFUSALS.get(plan.end, ()) as error:
            if plan.end == "refused" and getattr(error, "code", None) != 403:
                self.failures.add(plan, f"refused with {error!r}")
            return
        if not plan.opens:
            self.failures.add(plan, "the handshake succeeded")
        await self.hold()
        reading = None if plan.callback else asyncio.ensure_future(self._read(conn, take))
        try:
            await self._send(conn, plan)
            if plan.end == "close by client at once":
                conn.close(plan.code, plan.reason or None)
            elif plan.end in ("close by client", "no answer", "aborted"):
                # A server does not open what is gone already.
                due = 1 if plan.end == "aborted" else plan.messages
                while receiver.count < due and not ended.is_set():
                    changed.clear()
                    await changed.wait()
                if plan.end == "aborted":
                    conn.stream.close()
                conn.close(plan.code, plan.reason or None)
            await conn.wait_closed()
            if reading is not None:
                await reading
            elif not ended.is_set():
                self.failures.add(plan, "a client's callback was not told of the end")
        finally:
            if reading is not None:
                reading.cancel()
            conn.stream.close()
        receiver.end()
        if conn.close_code != plan.seen_code:
            self.failures.add(plan, f"the client's close_code is {conn.close_code} ({conn.close_reason})")
        elif plan.tells_reason("client") and conn.close_reason != plan.reason:
            self.failures.add(plan, f"the client's close_reason is {conn.close_reason!r}")

    @staticmethod
    async def _read(conn: WebSocketClientConnection, take: Any) -> None:
        while (message := await conn.read_message()) is not None:
            take(message)
        take(None)

    @staticmethod
    async def _send(conn: WebSocketClientConnection, plan: Plan) -> None:
        try:
            for number in range(plan.messages):
                message = plan.message(TO_SERVER, number)
                written = conn.write_message(message, binary=isinstance(message, bytes))
                if number % 3 == 1:
                    conn.ping(b"%d" % number)
                if plan.awaits:
                    await written
        except (WebSocketClosedError, StreamClosedError):
            # The server's end came before, and what is missing there is seen there.
            pass


if __name__ == "__main__":
    run(Clients)
