"""One scenario, run again and again under the shim with another call failing each time; a program of its own.

``python -m tests.faults`` and ``test_faults.py`` start it. It prints which fault broke what, and ends with 1 there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import importlib
import logging
import os
import random
import ssl
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import trustme
from tornado.httpclient import HTTPError, HTTPRequest
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from websockets.asyncio.server import Server, serve
from websockets.exceptions import WebSocketException

from tests.faults.scenarios import (
    SCENARIOS,
    Journal,
    Peer,
    Scenario,
    answer,
    read_to_end,
    seen,
)
from tests.faults.shim import FUNCTIONS, WAYS, Fault, Shim
from tests.support import PATIENCE, serving, until
from tornado_ws import WebSocketClientConnection, WebSocketError, engine, websocket_connect
from tornado_ws.connection.protocol13 import WebSocketProtocol13
from tornado_ws.transport.poller import poller_of
from tornado_ws.transport.transport import Transport

_Result = TypeVar("_Result")

#: Those that fail from where the opening handshake is decided on: what comes before is Tornado's.
_LATE = ("peek", "epoll_ctl", "epoll_create", "dup")
#: How many more calls in turn fail of what the loop tries for ever, and of what nothing at all works without.
_IN_TURN = {"accept": 4, "alloc": 1}
_FOR_EVER = 1 << 40
#: Storms for each scenario.
_STORMS = 8
#: Seconds for one fault, above what it may wait for in vain: for the run before, for a message, for the peer's closing
#: handshake. Then the program ends with the stacks of all threads.
_LONGEST = 4 * PATIENCE
#: What has to be as many after a run as before.
_COUNTED = (Transport, WebSocketProtocol13, IOStream)


#: How the log tells that something of others had no memory: a callback of the application, or asyncio for a step of the
#: request's task, whose result Tornado asks for.
_NO_MEMORY = ("Uncaught exception", "Exception in callback _HandlerDelegate.execute.<locals>.<lambda>")


class _Complaints(logging.Handler):
    """What went wrong where nobody was told but the log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []
        logging.getLogger().addHandler(self)
        sys.unraisablehook = self._unraisable

    def emit(self, record: logging.LogRecord) -> None:
        # One line about a connection that ended is right; a traceback is not, but where an application may be to blame.
        raised = record.exc_info[0] if record.exc_info else None
        if raised is MemoryError and record.getMessage().startswith(_NO_MEMORY):
            return
        if record.name == "asyncio" or (record.exc_info and not record.name.startswith("websockets")):
            text = f"{record.name}: {self.format(record)}"
            # Tornado lets out what fails before the opening handshake.
            tornados = ("in accept_handler", "in _do_ssl_handshake", "http1connection.py")
            if "/tornado_ws/" in text or not any(name in text for name in tornados):
                self.lines.append(text)

    def _unraisable(self, unraisable: Any) -> None:
        self.lines.append(f"unraisable in {unraisable.object!r}: {unraisable.exc_value!r}")


class _Broken(Exception):
    """Something did not hold."""


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise _Broken(what)


async def _eventually(condition: Callable[[], object], what: Callable[[], str]) -> None:
    try:
        await until(condition)
    except AssertionError:
        raise _Broken(what()) from None


def _descriptors() -> Counter[str]:
    """Return what the process has open, by kind."""
    kinds: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            kind = os.readlink(f"/proc/self/fd/{name}")
            kinds[kind.partition(":")[0] if kind.startswith("socket") else kind] += 1
    return kinds


def _objects() -> Counter[str]:
    return Counter(base.__name__ for found in gc.get_objects() for base in _COUNTED if issubclass(type(found), base))


class _Seen:
    """What both ends saw of a run."""

    def __init__(self, ours: list[Journal], peers: Journal) -> None:
        self.ours = ours
        self.peers = peers

    def check(self, whole: _Seen, fault: Fault) -> None:
        """Compare with what is seen when nothing fails."""
        if fault.is_passing:
            _expect(self.ours == whole.ours, f"we saw {self.ours}, not {whole.ours}")
            _expect(self.peers == whole.peers, f"the peer saw {self.peers}, not {whole.peers}")
            return
        for mine, right in zip(self.ours, whole.ours, strict=False):
            _check_beginning(mine, right)
        _check_beginning(self.peers, whole.peers)


def _messages(journal: Journal) -> Journal:
    return [entry for entry in journal if entry[0] == "message"]


def _check_beginning(journal: Journal, right: Journal) -> None:
    messages, all_messages = _messages(journal), _messages(right)
    _expect(
        messages == all_messages[: len(messages)], f"messages were lost, changed or doubled: {journal}, not {right}"
    )


class _Peers:
    """The loop of the peers, in a thread of its own: no call of theirs fails."""

    def __init__(self) -> None:
        self._loop = asyncio.SelectorEventLoop()
        # It would log that a connection was cut.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> _Peers:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def do(self, what: Coroutine[Any, Any, _Result]) -> _Result:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(what, self._loop))


class _Bench:
    """A loop with one connection that no fault is for, and room for those that faults are for."""

    def __init__(self, shim: Shim, scenario: Scenario) -> None:
        self._shim = shim
        self._scenario = scenario
        self._complaints = _Complaints()
        self._peers = _Peers()
        self._late = False
        self._subjects: list[Journal] = []
        self.url = ""
        #: How many are open without a connection.
        self._sockets = 0
        authority = trustme.CA()
        self._server_tls = self._client_tls = None
        if scenario.tls:
            self._server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("localhost", "127.0.0.1").configure_cert(self._server_tls)
            self._client_tls = ssl.create_default_context()
            authority.configure_trust(self._client_tls)

    def _arm_late(self) -> None:
        if self._late:
            self._shim.arm()

    @contextlib.asynccontextmanager
    async def set_up(self) -> AsyncIterator[None]:
        with self._peers:
            if self._scenario.client is not None:
                server = await self._peers.do(self._serve())
                try:
                    self._use(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
                    yield
                finally:
                    await self._peers.do(_stop(server))
            else:
                arguments = {
                    "journals": self._subjects,
                    "open_now": set(),
                    "arm": self._arm_late,
                    "deflate": self._scenario.deflate,
                }
                async with serving([("/", self._scenario.subject, arguments)], ssl_options=self._server_tls) as url:
                    self._use(url)
                    yield

    def _use(self, url: str) -> None:
        self._sockets = _descriptors()["socket"]
        self.url = url.replace("ws:", "wss:") if self._scenario.tls else url

    def _request(self) -> HTTPRequest:
        return HTTPRequest(self.url, ssl_options=self._client_tls, connect_timeout=PATIENCE)

    async def _serve(self) -> Server:
        server: Server = await serve(
            answer,
            "127.0.0.1",
            0,
            ssl=self._server_tls,
            compression="deflate" if self._scenario.deflate else None,
            max_size=None,
            ping_interval=None,
            close_timeout=PATIENCE,
        )
        return server

    def _peer(self) -> Peer:
        return Peer(self.url, self._client_tls, self._scenario.deflate)

    @contextlib.asynccontextmanager
    async def another(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Have another connection, and give what sees whether it works."""
        if self._scenario.client is not None:
            client = await websocket_connect(self._request())

            async def ask() -> None:
                await client.write_message("are you there")
                _expect(await client.read_message() == "are you there", "another connection is not served")

            try:
                # It is watched from the first message on.
                await ask()
                yield ask
            finally:
                client.close()
                await client.wait_closed()
            return
        peer = self._peer()
        connecting = peer.connected()
        connection = await self._peers.do(connecting.__aenter__())

        async def ask_server() -> None:
            await self._peers.do(peer.exchange(connection, "are you there"))
            _expect(peer.journal.pop() == seen("are you there"), "another connection is not served")

        try:
            yield ask_server
        finally:
            await self._peers.do(connecting.__aexit__(None, None, None))

    @contextlib.asynccontextmanager
    async def nothing_open(self) -> AsyncIterator[None]:
        """See that all that is opened within is closed at the end."""
        # The library closes sockets in a thread of its own, and may not be done with those of the run before.
        await _eventually(
            lambda: _descriptors()["socket"] == self._sockets,
            lambda: f"{_descriptors()['socket'] - self._sockets} sockets left of the run before",
        )
        before = _descriptors()
        yield
        await _eventually(lambda: _descriptors() == before, lambda: f"descriptors left: {_descriptors() - before}")

    async def run(self, fault: Fault | None) -> _Seen:
        """Run the scenario with ``fault``, on a loop with one other connection, and see that nothing is left of it."""
        gc.collect()
        objects, tasks = _objects(), asyncio.all_tasks()
        watched = len(poller_of(IOLoop.current()).connections())
        self._subjects.clear()
        self._complaints.lines.clear()
        self._late = fault is not None and fault.function in _LATE
        self._shim.spare_open_descriptors()
        self._shim.plan(fault)
        self._shim.arm(not self._late)
        try:
            if self._scenario.client is not None:
                seen = await self._run_client()
            else:
                seen = await self._run_server()
        finally:
            self._shim.arm(False)
        for journal in seen.ours:
            ends = [entry for entry in journal if entry[0] in ("open", "close", "end")]
            names = [entry[0] for entry in ends]
            _expect(names in ([], ["open", "close"], ["end"]), f"on_close not exactly once: {journal}")
        poller = poller_of(IOLoop.current())
        await _eventually(
            lambda: len(poller.connections()) == watched,
            lambda: f"{len(poller.connections()) - watched} sockets still watched",
        )
        await _eventually(lambda: asyncio.all_tasks() <= tasks, lambda: f"tasks left: {asyncio.all_tasks() - tasks}")

        def is_gone() -> bool:
            gc.collect()
            return not _objects() - objects

        await _eventually(is_gone, lambda: f"objects left: {_objects() - objects}")
        _expect(not self._complaints.lines, "\n".join(self._complaints.lines))
        return seen

    async def _run_server(self) -> _Seen:
        assert self._scenario.peer is not None
        peer = self._peer()
        try:
            await self._peers.do(self._scenario.peer(peer))
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise _Broken(f"the peer waited in vain, behind {peer.journal}: {error}") from None
        except (OSError, EOFError, WebSocketException) as error:
            peer.journal.append(("error", type(error).__name__))
        # Those that are told to close, too.
        await _eventually(
            lambda: all(entry[-1][0] == "close" for entry in self._subjects if entry),
            lambda: f"no on_close: {self._subjects}",
        )
        return _Seen([list(journal) for journal in self._subjects], peer.journal)

    async def _run_client(self) -> _Seen:
        assert self._scenario.client is not None
        journal: Journal = []
        try:
            client = await websocket_connect(
                self._request(),
                compression_options={} if self._scenario.deflate else None,
            )
        except (OSError, WebSocketError, HTTPError, MemoryError) as error:
            return _Seen([], [("refused", type(error).__name__)])
        self._arm_late()
        try:
            await asyncio.wait_for(self._use_client(client, journal), PATIENCE)
        except asyncio.TimeoutError:
            raise _Broken(f"the client waited in vain, behind {journal}") from None
        return _Seen([journal], [])

    async def _use_client(self, client: WebSocketClientConnection, journal: Journal) -> None:
        assert self._scenario.client is not None
        try:
            await self._scenario.client(client, journal)
        except WebSocketError:
            # It was found closed: so does the next read.
            await read_to_end(client, journal)
        except MemoryError:
            client.close()
            await read_to_end(client, journal)
        await client.wait_closed()


async def _stop(server: Server) -> None:
    server.close()
    await server.wait_closed()


def _faults(counts: Counter[str], seed: int, functions: Iterable[str]) -> Iterator[Fault]:
    """Yield every fault of ``functions`` that a run with so many calls can meet, and storms."""
    for function in functions:
        for first in range(1, counts[function] + 1):
            for way in WAYS[function]:
                yield (once := Fault(function, way, first, first))
                if not once.is_passing:
                    yield Fault(function, way, first, first + _IN_TURN.get(function, _FOR_EVER))
    for number in range(_STORMS):
        yield Fault(None, "EAGAIN", 0, 0, seed + number)


def _chosen(faults: list[Fault], most: int, seed: int) -> list[Fault]:
    """Return ``most`` of ``faults``, of each function as many: some are called a hundred times as often as others."""
    turns: Counter[str | None] = Counter()

    def turn(fault: Fault) -> int:
        turns[fault.function] += 1
        return turns[fault.function]

    return sorted(random.Random(seed).sample(faults, len(faults)), key=turn)[:most]


@contextlib.contextmanager
def _named(what: Fault | str, now: Path | None) -> Iterator[None]:
    """Have ``what`` in the file ``now`` meanwhile: a crash, a hang or an error leaves it there."""
    if now is not None:
        now.write_text(str(what))
    faulthandler.dump_traceback_later(_LONGEST, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    if now is not None:
        now.write_text("")


async def _sweep(shim: Shim, options: argparse.Namespace) -> None:
    """Try one fault after the other, and end the program at the first that breaks something."""
    scenario = SCENARIOS[options.scenario]
    bench = _Bench(shim, scenario)
    tried = 0
    async with bench.set_up():
        counts: Counter[str] = Counter()
        async with bench.another() as ask:
            # What is made at first use is there from the second run on.
            for _ in range(3):
                with _named("", options.now):
                    whole = await bench.run(None)
                    await ask()
                    counts |= Counter(shim.counts())
        if scenario.several:
            # They would fail for the next connection in Tornado's part.
            for name in _LATE:
                del counts[name]
        gc.freeze()
        every = _faults(counts, options.seed, options.functions or FUNCTIONS)
        faults = [fault for fault in every if options.only is None or str(fault) == options.only]
        if options.most is not None:
            faults = _chosen(faults, options.most, options.seed)
        if options.after is not None:
            faults = faults[1 + [str(fault) for fault in faults].index(options.after) :]
        for fault in faults:
            tried += 1
            try:
                with _named(fault, options.now):
                    async with bench.nothing_open(), bench.another() as ask:
                        (await bench.run(fault)).check(whole, fault)
                        await ask()
            except Exception as error:
                print(f"{fault}\n    {error if isinstance(error, _Broken) else repr(error)}", flush=True)
                # What is left of it would be found in the runs behind it, and asyncio.run() waits for tasks.
                os._exit(1)
    print(f"{tried} faults broke nothing; calls without any: {dict(counts)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, help="so many of the faults, chosen by the seed")
    parser.add_argument("--only", help="one fault, as it is printed")
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, help="those that fail; all if not given")
    parser.add_argument("--after", help="only the faults behind this one")
    parser.add_argument("--now", type=Path, help="a file that names the fault while it is tried")
    options = parser.parse_args()
    faulthandler.enable()
    # Lines about connections that end are right here, and many.
    logging.getLogger().addHandler(logging.NullHandler())
    shim = Shim()
    if engine.name == "native":
        names = ("tornado_ws.deflate._deflate", "tornado_ws.engine._native")
        shim.count_allocations_of(map(importlib.import_module, names))
    asyncio.run(_sweep(shim, options))


if __name__ == "__main__":
    main()
