"""A server and its clients with types: mypy and pyright, both strict, check every attribute that the documentation has.

Run ``python examples/typed/application.py``; it talks to itself, and prints what it has seen.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any, ClassVar

from tornado.httpclient import HTTPRequest
from tornado.netutil import bind_sockets
from tornado.web import Application

import tornado_ws
from tornado_ws.codecs import Codec, JSONCodec

#: The last of the messages that a visitor sends to the room.
LAST = "that is all"


class Room(tornado_ws.WebSocketHandler):
    """Passes on to the topic of its path what a visitor says, and shows what can be read of a connection."""

    websocket_close_timeout = 2.0
    websocket_write_limit = 1 << 20

    seen: ClassVar[dict[str, object]] = {}
    members: ClassVar[set[Room]] = set()

    def initialize(self, topics: tornado_ws.Topics) -> None:
        self.topics = topics

    def check_origin(self, origin: str) -> bool:
        return super().check_origin(origin)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return "room" if "room" in subprotocols else None

    def get_websocket_protocol(self) -> tornado_ws.WebSocketProtocol | None:
        return super().get_websocket_protocol()

    def get_compression_options(self) -> dict[str, Any] | None:
        return {"compression_level": 1}

    async def open(self, name: str) -> None:
        self.topic = f"room/{name}"
        self.members.add(self)
        self.set_nodelay(True)
        since = self.get_query_argument("since", None)
        subscription: tornado_ws.Subscription = await self.topics.subscribe(
            self, self.topic, since=since, envelope=True, policy="latest", on_gap=self.on_gap, presence="visitor"
        )
        self.note(
            topic=subscription.topic,
            is_mine=subscription.connection is self,
            position=str(subscription.position),
            recovered=subscription.recovered,
            missed=subscription.missed,
            present=await self.topics.presence(self.topic),
            subprotocol=self.selected_subprotocol,
            limits=(self.ping_interval, self.ping_timeout, self.max_message_size),
        )

    async def on_message(self, message: str | bytes) -> None:
        position: tornado_ws.Position = await self.topics.publish(self.topic, message)
        self.note(epoch=position.epoch, id=position.id)
        if message == LAST:
            self.ping(b"are you there?")
            self.write_message({"kind": "answer"})
            self.write_message(bytearray(b"bytes"), binary=True, compress=False)
            self.write_message(memoryview(b"a view"), binary=True)

    def on_gap(self, subscription: tornado_ws.Subscription) -> None:
        self.note(gap=subscription.topic)

    def on_ping(self, data: bytes) -> None:
        self.note(ping=data.decode())

    def on_pong(self, data: bytes) -> None:
        connection = self.ws_connection
        assert connection is not None
        assert connection.stream is not None
        sock: socket.socket | None = connection.stream.socket
        latency: tornado_ws.Latency = connection.latency
        counters: tornado_ws.Counters = connection.counters
        self.note(
            connection=connection.connection_id,
            peer=connection.peer_name,
            last=latency.last,
            smoothed=latency.smoothed,
            messages=(counters.messages_in, counters.messages_out, counters.dropped),
            message_bytes=(counters.message_bytes_in, counters.message_bytes_out),
            wire_bytes=(counters.wire_bytes_in, counters.wire_bytes_out),
            ratios=(counters.compression_ratio_in, counters.compression_ratio_out),
            waiting=(connection.buffered_amount, counters.buffered_amount, counters.latency == latency),
            port=sock.getsockname()[1] if sock is not None else None,
            closing=connection.is_closing(),
        )
        connection.write_message("from the protocol")
        connection.write_message(bytearray(b"the same"))
        connection.flush()

    async def on_close(self) -> None:
        self.members.discard(self)
        self.topics.unsubscribe(self, self.topic)
        self.note(close_code=self.close_code, close_reason=self.close_reason)

    def note(self, **values: object) -> None:
        self.seen.update(values)


class Values(tornado_ws.WebSocketHandler):
    """Values in the place of messages."""

    websocket_codec: Codec = JSONCodec()

    def on_message(self, message: Any) -> None:
        self.write_message({"got": message})


class Parts(tornado_ws.WebSocketHandler):
    """Messages in parts."""

    websocket_max_part_size = 1000

    async def on_message_stream(self, stream: tornado_ws.MessageStream) -> None:
        sent: tornado_ws.WriteStream
        async with self.write_stream(binary=stream.is_binary) as sent:
            async for part in stream:
                await sent.write(part)


class Client(tornado_ws.WebSocketClientConnection):
    """A client that hears of control frames."""

    def on_ping(self, data: bytes) -> None:
        print("ping:", data)

    def on_pong(self, data: bytes) -> None:
        print("pong:", data)


async def visit(url: str) -> list[str | bytes]:
    """Talk to a room, and return what was sent there."""
    received: list[str | bytes] = []
    async with tornado_ws.websocket_connect(
        url,
        subprotocols=["room"],
        compression_options={},
        ping_interval=20,
        headers={"X-Visitor": "typed"},
        close_timeout=2.0,
        write_limit=1 << 20,
    ) as conn:
        conn.ping("hello")
        try:
            await conn.write_message("good morning")
        except tornado_ws.WriteLimitError as error:
            print("too much waits:", error)
        await conn.write_message(bytearray(b"\x00\x01"), binary=True)
        conn.write_message(memoryview(b"a view"), binary=True, compress=False)
        sent = conn.write_message_threadsafe(LAST)
        protocol: tornado_ws.WebSocketProtocol | None = conn.protocol
        assert isinstance(protocol, tornado_ws.WebSocketProtocol13)
        async for message in conn:
            received.append(message)
            if message == "the same":
                break
        latency: tornado_ws.Latency = conn.latency
        print("sent:", protocol.counters.messages_out, sent.done(), conn.buffered_amount, latency.last)
        print("protocol:", conn.selected_subprotocol, protocol.latency == latency, protocol.connection_id > 0)
        conn.close(4000, "good bye")
        await conn.wait_closed()
    assert await conn.read_message() is None
    print("closed:", conn.close_code, conn.close_reason)
    return received


async def come_back(url: str, topics: tornado_ws.Topics) -> None:
    """Read two messages of a room, each on a connection of its own."""
    resume = tornado_ws.Resume(argument="since")
    connections = tornado_ws.reconnect(url, resume=resume, first_delay=0.01, ping_interval=20, final=ValueError)
    count = 0
    async for conn in connections:
        resumed: tornado_ws.ResumedConnection = conn
        assert resumed.connection.protocol is not None
        topics.publish("room/a", f"message {count}")
        try:
            async for envelope in conn:
                received: tornado_ws.Envelope = envelope
                print(received.topic, received.data, bool(received.position), bool(resume.positions))
                break
        except tornado_ws.TopicGapError:
            print("a gap")
        except tornado_ws.WebSocketClosedError as error:
            print("closed:", error.close_code, error.close_reason)
        conn.write_message(bytearray(b"bye"))
        conn.connection.ping()
        conn.close(1000, "done")
        await conn.wait_closed()
        print("ended:", conn.close_code, conn.close_reason, await conn.read_message())
        count += 1
        if count == 2:
            break


async def send_to_all(url: str) -> None:
    """Send one message to the handlers of a room, and another to two clients' servers."""
    async with tornado_ws.websocket_connect(url) as one, tornado_ws.websocket_connect(url) as other:
        while len(Room.members) < 2:
            await asyncio.sleep(0.001)
        sent = tornado_ws.broadcast(Room.members, bytearray(b"to all"))
        sent += tornado_ws.broadcast([one, other], memoryview(b"from both"), binary=True)
        print("broadcast:", sent, await one.read_message(), await other.read_message())


async def refused(url: str) -> None:
    """Connect to where no WebSocket is."""
    try:
        await tornado_ws.websocket_connect(url, connect_timeout=10, follow_redirects=True, proxy=False)
    except tornado_ws.InvalidHandshakeError as error:
        print("invalid:", error.status, error.reason)
    except tornado_ws.RedirectError as error:
        print("redirect:", error.location)
    except tornado_ws.HandshakeRejectedError as error:
        print("rejected:", error.status, error.reason, error.headers.get("Server", "").partition("/")[0])
        print("the same:", error.code, error.message, error.response is not None)
    except tornado_ws.HandshakeError as error:
        print("no handshake:", error.status, error.reason)
    except tornado_ws.ProxyError as error:
        print("proxy:", error.proxy, error.reason, error.status)
    except tornado_ws.WebSocketError as error:
        print("another error:", error)


async def exchange_values(url: str) -> None:
    conn = await Client(HTTPRequest(url), codec="json", keepalive_timeout=60).connect_future
    await conn.write_message({"symbol": "TWS"})
    print("value:", await conn.read_message())
    conn.close()
    await conn.wait_closed()


async def exchange_parts(url: str) -> None:
    async with tornado_ws.websocket_connect(url, message_streams=True) as conn:
        async with conn.write_stream() as stream:
            for _ in range(3):
                await stream.write("part ")
        async for part in conn.read_stream():
            print("part:", part)


async def listen(topics: tornado_ws.Topics) -> None:
    """Read a topic without a connection, and what counts topics."""
    async with topics.listen("room/*", limit=100) as listener:
        await topics.publish("room/b", b"binary")
        async for message in listener:
            print("heard:", message.topic, message.data, message.position.epoch != "")
            break
    lag, counters, counted = topics.lag(), topics.counters, topics.counted["room/*"]
    print("behind:", lag.messages, lag.seconds, topics.is_away, topics.count("room/b"))
    print("topics:", counters.published > 0, counters.received > 0, counters.delivered > 0, counters.refused)
    print("faults:", counters.failed, counters.dropped, counters.repeated, counters.invalid, counters.gaps)
    print("broker:", counters.outages, counters.reconnects)
    print("counted:", counted.published > 0, counted.received > 0, counted.delivered > 0, counted.gaps)
    try:
        await topics.publish("", "")
    except tornado_ws.TopicNameError as error:
        print("name:", error)
    except tornado_ws.SubscriptionLimitError as error:
        print("limit:", error.subscriptions, error.limit)
    except tornado_ws.PublishError as error:
        print("unknown:", error.is_unknown)
    except tornado_ws.BrokerError as error:
        print("broker:", error)


async def main() -> None:
    handler = logging.StreamHandler()
    handler.addFilter(tornado_ws.ConnectionFilter())
    logging.basicConfig(handlers=[handler], level=logging.ERROR)
    history = {"room/*": tornado_ws.History(count=100, seconds=60)}
    async with tornado_ws.Topics(history=history, counted=["room/*"], max_subscriptions=10) as topics:
        application = Application(
            [(r"/rooms/(\w+)", Room, {"topics": topics}), (r"/values", Values), (r"/parts", Parts)],
            websocket_ping_interval=20,
            websocket_keepalive_timeout=60,
            websocket_max_connections=100,
        )
        tornado_ws.check_settings(application)
        server = tornado_ws.HTTPServer(application, xheaders=True)
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        url = f"ws://127.0.0.1:{sockets[0].getsockname()[1]}"
        print("received:", await visit(f"{url}/rooms/a"))
        await come_back(f"{url}/rooms/a", topics)
        await send_to_all(f"{url}/rooms/c")
        await refused(f"{url}/nowhere")
        await exchange_values(f"{url}/values")
        await exchange_parts(f"{url}/parts")
        await listen(topics)
        server.stop()
        closed: tornado_ws.ClosedAll = await tornado_ws.close_all(application, reason="stopping", timeout=5)
        print("close_all:", closed.closed, closed.aborted)
        await server.close_all_connections()
    process: tornado_ws.ProcessCounters = tornado_ws.counters()
    print("process:", process.open_connections, process.connections, process.messages_in > 0)
    print("engine:", tornado_ws.engine.name)
    for name, value in Room.seen.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    asyncio.run(main())
