"""Servers that are not just there: with TLS and users that may do little, and with sentinels."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.ports import unused_port
from tests.programs import ROOT
from tests.pubsub.numbers import TOPICS, Publisher, collecting, everything_came
from tests.pubsub.redis_server import RedisServer, started
from tests.pubsub.room import Members, room
from tests.support import until
from tornado_ws import BrokerError, History, PublishError, Topics


def documented_commands() -> list[str]:
    """Return the commands that docs/topics.md says a user needs, as ACL rules."""
    text = (ROOT / "docs" / "topics.md").read_text()
    words = text.partition("The user needs ")[2].partition("all on keys")[0].split("`")[1::2]
    return [f"+{word.lower().replace(' ', '|')}" for word in words]


async def recovery_and_presence_work(topics: Topics, members: Members) -> None:
    position = await topics.publish("room/a", "1")
    await topics.publish("room/a", "2")
    client = await members.join("a", since=position)
    assert await client.read_message() == "2"
    await topics.subscribe(members.handlers[0], "room/a", presence="here")
    assert await topics.presence("room/a") == ["here"]


@pytest.mark.gen_test
async def test_tls_and_a_user_that_may_do_what_the_documentation_says(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")}
    authority.cert_pem.write_to_path(files["ca.pem"])
    certificate.cert_chain_pems[0].write_to_path(files["cert.pem"])
    certificate.private_key_pem.write_to_path(files["key.pem"])
    options = ["--port", "0", "--tls-auth-clients", "no", "--tls-ca-cert-file", files["ca.pem"]]
    options += ["--tls-cert-file", files["cert.pem"], "--tls-key-file", files["key.pem"]]
    server = RedisServer(tmp_path, *options, port_option="--tls-port", ssl=True, ssl_ca_certs=files["ca.pem"],
                         host="127.0.0.1")  # fmt: skip
    url = f"rediss://app:secret@127.0.0.1:{server.port}/0?ssl_ca_certs={files['ca.pem']}"
    with started(server):
        server.ask("ACL", "SETUSER", "app", "on", ">secret", "~tornado_ws:*", *documented_commands())
        async with Topics(url, history={"*": History()}) as topics, room(topics) as members:
            await recovery_and_presence_work(topics, members)
        assert [line for line in server.ask("ACL", "LOG") if b"client-info" in line] == []
        async with Topics(url.replace("secret", "wrong"), broker_timeout=2.0) as topics:
            with pytest.raises(PublishError, match="credentials"):
                await topics.publish("a", "x")
            with pytest.raises(BrokerError, match="credentials"):
                await topics.listen("a").begin()


@contextlib.contextmanager
def sentinel(directory: Path, primary: RedisServer) -> Iterator[int]:
    """Run a sentinel that watches ``primary``; gives its port."""
    port = unused_port()
    (directory / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
        f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
    )
    with (directory / "sentinel.log").open("ab") as log:
        command = [primary.program, "sentinel.conf", "--sentinel"]
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def replicated(directory: Path, kind: str) -> AsyncIterator[tuple[RedisServer, RedisServer, str]]:
    """Run a primary, a replica of it and a sentinel that knows both; gives the URL too."""
    for name in ("first", "second"):
        (directory / name).mkdir()
    first = RedisServer(directory / "first", "--repl-diskless-sync-delay", "0", kind=kind)
    second = RedisServer(directory / "second", "--replicaof", f"127.0.0.1 {first.port}", kind=kind)
    with started(first, second), sentinel(directory, first) as port:
        await until(lambda: int(first.ask("INFO", "replication")["connected_slaves"]) == 1)
        # It asks the primary for its replicas every ten seconds; until it knows one there is no failover.
        watcher = RedisServer(directory, kind=kind)
        watcher.port = port
        await until(lambda: _knows_a_replica(watcher))
        yield first, second, f"redis+sentinel://127.0.0.1:{port}/main"


@pytest.mark.gen_test
async def test_a_failover_that_sentinels_decide_on(tmp_path: Path, kind: str) -> None:
    async with (
        replicated(tmp_path, kind) as (first, _, url),
        Topics(url) as here,
        Topics(url) as there,
        collecting(here) as ours,
        collecting(there) as theirs,
    ):
        publisher = Publisher(here)
        publisher.publish(500)
        await everything_came(publisher, ours, theirs)
        await until(lambda: _replica_has_everything(first))
        first.stop()
        # They wait for the other one.
        for _ in range(50):
            publisher.publish(10)
            await asyncio.sleep(0.01)
        await asyncio.gather(*publisher.futures)
        publisher.publish(500)
        await everything_came(publisher, ours, theirs)
        assert here.counters.gaps == there.counters.gaps == here.counters.failed == 0


@pytest.mark.gen_test
async def test_a_failover_to_a_replica_that_was_behind_is_a_gap(tmp_path: Path, kind: str) -> None:
    async with (
        replicated(tmp_path, kind) as (first, second, url),
        Topics(url, streams=1) as topics,
        collecting(topics) as collector,
    ):
        publisher = Publisher(topics)
        publisher.publish(50)
        await everything_came(publisher, collector)
        await until(lambda: _replica_has_everything(first))
        second.pause()
        # Else the kernel would have for it what comes now.
        first.ask("CLIENT", "KILL", "TYPE", "replica")
        publisher.publish(50)
        await everything_came(publisher, collector)
        first.stop()
        second.go_on()
        await until(lambda: collector.gaps)
        assert "older data" in collector.gaps[0]
        publisher.publish(50)
        await asyncio.gather(*publisher.futures)
        # Behind the gap everything goes on, in order and once.
        await until(lambda: collector.count == publisher.sent)
        for topic in TOPICS:
            assert collector.numbers[topic] == list(range(publisher.sent // len(TOPICS)))


@pytest.mark.gen_test
async def test_a_cluster(tmp_path: Path, kind: str) -> None:
    servers = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        bus = unused_port()
        options = ["--cluster-enabled", "yes", "--cluster-port", str(bus)]
        servers.append(RedisServer(tmp_path / name, *options, kind=kind))
    first, second = servers
    with started(first, second):
        first.ask("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        second.ask("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        first.ask("CLUSTER", "MEET", "127.0.0.1", second.port, bus)
        for text in (b"cluster_state:ok", b"cluster_known_nodes:2", b"cluster_slots_ok:16384"):
            await until(lambda: all(text in each.ask("CLUSTER", "INFO") for each in servers))  # noqa: B023
        url = f"redis+cluster://127.0.0.1:{first.port}"
        async with Topics(url, streams=4, history={"*": History()}) as topics, topics.listen("t/*") as listener:
            sent = [f"{number}" for number in range(200)]
            for number in sent:
                topics.publish(f"t/{int(number) % 20}", number)
            received = [await anext(listener) for _ in sent]
            assert sorted(str(message.data) for message in received) == sorted(sent)
            for topic in {message.topic for message in received}:
                own = [int(message.data) for message in received if message.topic == topic]
                assert own == sorted(own)
            async with room(topics) as members:
                await recovery_and_presence_work(topics, members)
            for server in servers:
                server.kill_connections()
            await topics.publish("t/1", "after")
            assert (await anext(listener)).data == "after"
            assert topics.counters.gaps == 0


def _replica_has_everything(primary: RedisServer) -> bool:
    found = primary.ask("INFO", "replication")
    return bool(found["slave0"]["state"] == "online" and found["slave0"]["offset"] == found["master_repl_offset"])


def _knows_a_replica(watcher: RedisServer) -> bool:
    with contextlib.suppress(Exception):
        found: Any = watcher.ask("SENTINEL", "REPLICAS", "main")
        return bool(found)
    return False
