"""What has to be made before anything is measured: the C programs, a certificate, Node's packages, the messages."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.payloads import COMPACT, PAYLOADS
from benchmarks.peers import FLOOR, NODE, Client, Server
from benchmarks.process import python
from benchmarks.ring import write_rings

_LOAD = Path(__file__).parent / "load"
_NODE_PACKAGES = ("ws", "bufferutil", "utf-8-validate")
#: Bytes of different messages in a file: well beyond a deflate window, so that nothing refers to its own last round.
_RING_BYTES = 96 * 1024
_RING_MIN, _RING_MAX = 4, 1024


class MissingError(Exception):
    """Something without which nothing can be measured."""


@dataclass(frozen=True)
class Tools:
    """Paths; None where the machine lacks what it takes."""

    directory: Path
    load_tls: Path | None
    certificate: tuple[Path, Path] | None
    node_modules: Path | None
    redis_server: str | None
    missing: tuple[str, ...]

    def program(self, name: str) -> str:
        """Return the path of one of the C programs."""
        return str(self.directory / name)

    def ring(self, payload: str, *, deflate: bool, compact: bool) -> Path:
        """Return the prefix of the files with the messages of one kind, written at the first call."""
        name = f"{payload.replace(' ', '-')}{'-deflate' if deflate else ''}{'-compact' if compact else ''}"
        prefix = self.directory / name
        if not prefix.with_suffix(".plain").exists():
            size = len(PAYLOADS[payload](1)[0])
            messages = PAYLOADS[payload](min(max(_RING_BYTES // size, _RING_MIN), _RING_MAX))
            replies = [json.dumps(json.loads(message), separators=COMPACT) for message in messages] if compact else None
            write_rings(prefix, messages, replies, deflate=deflate)
        return prefix

    def lacks(self, peer: Server | Client) -> str | None:
        """Return what ``peer`` cannot run without here, or None."""
        if peer.name == NODE and self.node_modules is None:
            return "Node.js or npm"
        if isinstance(peer, Server):
            lacking = [name for name in peer.needs_all if importlib.util.find_spec(name) is None]
            if lacking:
                return f"the module {lacking[0]} (pip install '.[bench]')"
        # Any one of them does.
        if peer.needs and not any(importlib.util.find_spec(name) for name in peer.needs):
            return f"the package {' or '.join(name.replace('_', '-') for name in peer.needs)}"
        return None


def make_tools(directory: Path, wanted: Sequence[Server]) -> Tools:
    """Make in ``directory`` all that the machine allows. Raises `MissingError` without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MissingError("a C compiler is missing, and with it the load generator")
    missing = []
    replies = ("reply.c", "ring.c", "socket.c", "-lz")
    for name, sources in (
        ("load", replies),
        ("idle", replies),
        ("churn", ("socket.c",)),
        ("subscribe", ("socket.c",)),
        ("floor", ()),
    ):
        error = _compile(compiler, directory / name, f"{name}.c", *sources)
        if error:
            raise MissingError(f"{name}.c does not compile (it needs Linux and zlib's headers): {error}")
    load_tls: Path | None = directory / "load-tls"
    certificate = _make_certificate(directory)
    if _compile(compiler, directory / "load-tls", "load.c", "-DWITH_TLS", *replies, "-lssl", "-lcrypto"):
        load_tls = None
        missing.append("OpenSSL's headers (libssl-dev) are missing: no TLS rows")
    elif certificate is None:
        missing.append("the openssl command is missing: no TLS rows")
    node_modules = None
    if any(server.name == NODE for server in wanted):
        node_modules = _install_node_packages()
    redis_server = shutil.which("redis-server")
    if redis_server is None or importlib.util.find_spec("redis") is None:
        redis_server = None
        missing.append("redis-server or the package redis is missing: no rows over Redis")
    return Tools(directory, load_tls, certificate, node_modules, redis_server, tuple(missing))


def _compile(compiler: str, program: Path, *arguments: str) -> str:
    """Return the compiler's first complaint, "" for none."""
    command = [compiler, "-O2", "-Wall", "-Wextra", "-std=gnu11", "-o", str(program), *arguments]
    done = subprocess.run(command, cwd=_LOAD, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[0]


def _make_certificate(directory: Path) -> tuple[Path, Path] | None:
    if shutil.which("openssl") is None:
        return None
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    return certificate, key


def _install_node_packages() -> Path | None:
    """Return a folder outside the checkout that holds Node's packages, installed at the first call on a machine."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tornado_ws-benchmarks"
    modules = cache / "node_modules"
    if not all((modules / name / "package.json").exists() for name in _NODE_PACKAGES):
        cache.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--prefix", str(cache), "--no-audit", "--no-fund", "--silent", *_NODE_PACKAGES]
        done = subprocess.run(command, cwd=cache, capture_output=True, timeout=300, check=False)
        if done.returncode != 0:
            return None
    return modules


def server_command(server: Server, tools: Tools, options: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command that starts ``server``, and what its environment needs."""
    environment = dict(server.environment)
    if server.name == FLOOR:
        return [tools.program("floor"), *options], environment
    if server.name == NODE:
        environment["NODE_PATH"] = str(tools.node_modules)
        return ["node", str(Path(__file__).parent / "servers" / "node_ws.js"), *options], environment
    return python(f"benchmarks.servers.{server.module}", *options), environment
