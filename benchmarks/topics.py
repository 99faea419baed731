"""What topics cost, in CPU time of the server's process: ``python -m benchmarks.topics [REDIS-URL]``.

Without a URL it starts a ``redis-server`` of its own, where there is one. Every figure is the median of rounds. Clients
are sockets that somebody else drains.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import socket
import statistics
import threading
import time
import tracemalloc
from typing import Any, ClassVar

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from benchmarks.redis_server import redis_server
from tornado_ws import Topics, WebSocketHandler, broadcast

CLIENTS = 100
MESSAGES = 100
ROUNDS = 15
PAYLOAD = "x" * 256

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Handler(WebSocketHandler):
    handlers: ClassVar[list[Handler]] = []

    def open(self) -> None:
        self.handlers.append(self)


async def connect(count: int) -> tuple[HTTPServer, list[socket.socket]]:
    """Open connections to a server in this loop, whose other ends nobody reads but `drain`."""
    listening, port = bind_unused_port()
    server = HTTPServer(Application([("/", Handler)]))
    server.add_socket(listening)
    clients = []
    for number in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(REQUEST)
        clients.append(client)
        while len(Handler.handlers) <= number:
            await asyncio.sleep(0)
    return server, clients


def drain(clients: list[socket.socket]) -> None:
    for client in clients:
        client.setblocking(False)
        try:
            while client.recv(1 << 20):
                pass
        except BlockingIOError:
            pass


async def deliveries(clients: list[socket.socket]) -> None:
    """As uWebSockets' broadcast_test: 100 messages to each of 100 clients, 10,000 deliveries."""

    async def by_topics() -> None:
        done = topics.counters.received + MESSAGES
        for _ in range(MESSAGES):
            topics.publish("t", PAYLOAD)
        while topics.counters.received < done:
            await asyncio.sleep(0)

    async def by_broadcast() -> None:
        for _ in range(MESSAGES):
            broadcast(Handler.handlers, PAYLOAD)
        await asyncio.sleep(0)

    async def excluding() -> None:
        done = topics.counters.received + MESSAGES
        for handler in Handler.handlers[:MESSAGES]:
            topics.publish("t", PAYLOAD, exclude=handler)
        while topics.counters.received < done:
            await asyncio.sleep(0)

    async with Topics() as topics:
        for handler in Handler.handlers:
            await topics.subscribe(handler, "t")
        for name, work in (
            ("topics", by_topics),
            ("topics, each excludes one", excluding),
            ("broadcast", by_broadcast),
        ):
            seconds = []
            for _ in range(ROUNDS):
                begin = time.process_time()
                await work()
                seconds.append(time.process_time() - begin)
                drain(clients)
            each = statistics.median(seconds) / (MESSAGES * CLIENTS) * 1e6
            rate = 1e6 / each / (MESSAGES * CLIENTS)
            print(f"{name}: {each:.3f} us of CPU for a delivery, {rate:.0f} iterations a second")


async def memory() -> None:
    """What 10,000 idle subscriptions take, spread over the connections, which is the worst case for dicts."""
    async with Topics() as topics:
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(10_000):
            await topics.subscribe(Handler.handlers[number % CLIENTS], f"room/{number}")
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        print(f"memory: {(after - before) / 10_000:.0f} bytes for each of 10,000 subscriptions to a topic of its own")


def published_elsewhere(url: str, count: int) -> None:
    import redis

    from tornado_ws.pubsub.wire import Keys

    keys = Keys("tornado_ws", 16)
    client = redis.Redis.from_url(url)
    for _ in range(count // 500):
        pipeline = client.pipeline(transaction=False)
        for _ in range(500):
            pipeline.xadd(keys.stream(keys.number_of("t")), {"t": "t", "m": PAYLOAD}, maxlen=100_000)
        pipeline.execute()


async def over_redis(url: str) -> None:
    count = 20_000
    async with Topics(url, max_length=100_000) as topics, topics.listen("nothing/of/it"):
        for name in ("nobody is subscribed", "one is subscribed"):
            listener: Any = topics.listen("t", limit=10 * count)
            await listener.begin()
            if name == "nobody is subscribed":
                listener.close()
            before = topics.counters.received
            thread = threading.Thread(target=published_elsewhere, args=(url, count))
            thread.start()
            begin = time.thread_time()
            while topics.counters.received < before + count:
                await asyncio.sleep(0.05)
            each = (time.thread_time() - begin) / count * 1e6
            thread.join()
            print(f"reading from Redis, {name}: {each:.2f} us of CPU for a message of {len(PAYLOAD)} bytes")
        for _ in range(3):
            begin = time.thread_time()
            await asyncio.gather(*(topics.publish("elsewhere", PAYLOAD) for _ in range(count)))
            each = (time.thread_time() - begin) / count * 1e6
            print(f"publishing to Redis: {each:.2f} us of CPU for a message")


async def main(url: str | None) -> None:
    _, clients = await connect(CLIENTS)
    await deliveries(clients)
    await memory()
    program = shutil.which("redis-server")
    if url is not None:
        await over_redis(url)
    elif program is not None and hasattr(os, "sched_getaffinity"):
        with redis_server(program, min(os.sched_getaffinity(0))) as url:
            await over_redis(url)
    else:
        print("redis-server is missing: nothing over Redis")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.topics")
    parser.add_argument("url", metavar="URL", nargs="?", help="of a Redis; by default a redis-server of its own")
    asyncio.run(main(parser.parse_args().url))
