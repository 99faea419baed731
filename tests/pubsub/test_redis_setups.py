"""Servers that are not just there: with TLS and users that may do little, and with sentinels."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.ports import unused_port
from tests.programs import ROOT
from tests.pubsub.redis_server import RedisServer
from tests.pubsub.room import Members, room
from tests.support import until
from tornado_ws import BrokerError, History, PublishError, Topics


@contextlib.contextmanager
def started(*servers: RedisServer) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.stop()


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
        command = ["redis-server", "sentinel.conf", "--sentinel"]
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.gen_test
async def test_a_failover_that_sentinels_decide_on(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = RedisServer(tmp_path / "first", "--repl-diskless-sync-delay", "0")
    second = RedisServer(tmp_path / "second", "--replicaof", f"127.0.0.1 {first.port}")
    with started(first, second), sentinel(tmp_path, first) as port:
        await until(lambda: int(first.ask("INFO", "replication")["connected_slaves"]) == 1)
        # It asks the primary for its replicas every ten seconds; until it knows one there is no failover.
        watcher = RedisServer(tmp_path)
        watcher.port = port
        await until(lambda: _knows_a_replica(watcher))
        url = f"redis+sentinel://127.0.0.1:{port}/main"
        async with Topics(url) as topics, topics.listen("a") as listener:
            await topics.publish("a", "1")
            assert (await anext(listener)).data == "1"
            await until(lambda: _replica_has_everything(first))
            first.stop()
            await topics.publish("a", "2")
            assert (await anext(listener)).data == "2"
            assert topics.counters.gaps == 0
            assert topics.counters.failed == 0


@pytest.mark.gen_test
async def test_a_cluster(tmp_path: Path) -> None:
    servers = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        bus = unused_port()
        servers.append(RedisServer(tmp_path / name, "--cluster-enabled", "yes", "--cluster-port", str(bus)))
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
