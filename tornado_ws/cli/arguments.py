"""Arguments: the options of every command, and what they accept."""

from __future__ import annotations

import argparse
import math
import re

from tornado_ws import __version__, engine
from tornado_ws.escaping import shown
from tornado_ws.pubsub.settings import Settings

#: What a program that publishes or subscribes has to know of the servers.
_SHARED_SETTINGS = ("prefix", "streams", "max_length")

#: A field name and a field value of RFC 9110 (sections 5.1 and 5.5), the latter in the letters of Latin-1.
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\xa0-\xff]*)")


def parser(name: str) -> argparse.ArgumentParser:
    """Return what parses the arguments of the program ``name``; it ends the process with status 2 for wrong ones."""
    # By default the version is broken into lines.
    formatter = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(
        prog=name, description="WebSocket from the command line.", formatter_class=formatter
    )
    version = f"tornado_ws {__version__}, {engine.name} engine: {engine.reason}"
    whole.add_argument("--version", action="version", version=version)
    commands = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_connect(commands.add_parser("connect", help="talk to a server: typed, or lines in and lines out"))
    _add_serve(commands.add_parser("serve", help="serve an echo, and files of a directory"))
    _add_bench(commands.add_parser("bench", help="measure an echo server"))
    _add_publish(commands.add_parser("publish", help="publish messages to a topic, and print their positions"))
    _add_subscribe(commands.add_parser("subscribe", help="print what is published to topics"))
    commands.add_parser("run", help="run a Python program with tornado_ws in the place of tornado.websocket")
    return whole


def _add_connect(connect: argparse.ArgumentParser) -> None:
    _add_connecting(connect)
    connect.add_argument("--reconnect", action="store_true", help="connect again whenever the connection ends")
    connect.add_argument("--json", action="store_true", help="show JSON indented; in a pipe: one JSON value a line")
    connect.add_argument("--binary", action="store_true", help="lines of piped input are hexadecimal digits of bytes")
    connect.add_argument(
        "--wait",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="after the end of piped input, receive for so long; inf is until the server closes; %(default)s",
    )
    connect.add_argument("-v", "--verbose", action="store_true", help="show the headers of the answer, pings and ends")


def _add_connecting(command: argparse.ArgumentParser) -> None:
    command.add_argument("url", metavar="URL", help="ws://, wss:// or ws+unix://")
    command.add_argument(
        "--header", type=header, action="append", default=[], metavar="'NAME: VALUE'", help="may be repeated"
    )
    command.add_argument(
        "--subprotocol", type=token, action="append", default=[], metavar="NAME", help="offer it; may be repeated"
    )
    command.add_argument("--compress", action="store_true", help="offer permessage-deflate")
    proxy = command.add_mutually_exclusive_group()
    proxy.add_argument("--proxy", metavar="URL", help="http, https, socks5, socks5h or socks4; else the environment's")
    proxy.add_argument("--no-proxy", action="store_true", help="none, whatever the environment says")
    trust = command.add_mutually_exclusive_group()
    trust.add_argument("--insecure", action="store_true", help="accept any certificate")
    trust.add_argument("--cafile", metavar="FILE", help="trust the authorities in it (PEM), and no other")
    command.add_argument(
        "--timeout", type=above_0, default=20.0, metavar="SECONDS", help="for connecting, TLS and all; %(default)s"
    )


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("directory", nargs="?", metavar="DIRECTORY", help="serve its files too")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on; %(default)s, this machine alone")
    serve.add_argument("--port", type=port, default=8000, help="0 for any that is free; %(default)s")
    serve.add_argument(
        "--echo", type=path, metavar="PATH", help="where the echo is; /ws beside a DIRECTORY, else every path"
    )
    serve.add_argument("--any-origin", action="store_true", help="accept pages of other servers too")
    serve.add_argument("--compress", action="store_true", help="accept permessage-deflate")
    serve.add_argument("--tls-self-signed", action="store_true", help="wss, with a certificate made for this run")
    serve.add_argument("--save-ca", metavar="FILE", help="write the certificate for `connect --cafile FILE` there")


def _add_bench(bench: argparse.ArgumentParser) -> None:
    _add_connecting(bench)
    bench.add_argument("--connections", type=count, default=1, metavar="N", help="%(default)s")
    length = bench.add_mutually_exclusive_group()
    length.add_argument("--messages", type=count, default=1000, metavar="N", help="of each connection; %(default)s")
    length.add_argument("--seconds", type=above_0, metavar="N", help="in the place of a number of messages")
    bench.add_argument("--size", type=count, default=32, metavar="BYTES", help="of a message; %(default)s")
    bench.add_argument("--json", action="store_true", help="print the figures as one JSON object")


def _add_broker(command: argparse.ArgumentParser, *names: str) -> None:
    command.add_argument(
        "--redis",
        "--url",
        dest="url",
        default="redis://localhost:6379/0",
        metavar="URL",
        help="the broker; %(default)s",
    )
    defaults = Settings()
    for name in names:
        default = getattr(defaults, name)
        option = "--" + name.replace("_", "-")
        command.add_argument(option, type=type(default), default=default, help="as in the servers; %(default)s")


def _add_publish(publish: argparse.ArgumentParser) -> None:
    publish.add_argument("topic", metavar="TOPIC")
    publish.add_argument("message", metavar="MESSAGE", nargs="?", help="by default what comes on standard input")
    publish.add_argument("--lines", action="store_true", help="each line of standard input is a message")
    publish.add_argument("--binary", action="store_true", help="a binary message, else it is text in UTF-8")
    _add_broker(publish, *_SHARED_SETTINGS, "publish_timeout")


def _add_subscribe(subscribe: argparse.ArgumentParser) -> None:
    subscribe.add_argument("topics", metavar="TOPIC", nargs="+", help="a name, or a prefix and *")
    subscribe.add_argument("--count", type=count, metavar="N", help="end after so many messages")
    subscribe.add_argument("--json", action="store_true", help="print each as a JSON object")
    _add_broker(subscribe, *_SHARED_SETTINGS)


def header(text: str) -> tuple[str, str]:
    """Return name and value of ``text``."""
    found = _HEADER.fullmatch(text)
    if found is None:
        raise _wrong(text, "'NAME: VALUE', the name a token of RFC 9110, the value in printable letters of Latin-1")
    return found[1], found[2].strip()


def token(text: str) -> str:
    """Return the name of a subprotocol."""
    if not _HEADER.fullmatch(f"{text}:"):
        raise _wrong(text, "a token of RFC 9110: letters, digits and !#$%&'*+-.^_`|~")
    return text


def path(text: str) -> str:
    """Return the path of a URL."""
    if not text.startswith("/") or not (text.isascii() and text.isprintable()) or set(text) & set(" ?#"):
        raise _wrong(text, "a path that begins with /, in ASCII without spaces, ? and #")
    return text


def port(text: str) -> int:
    """Return the number of a port."""
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise _wrong(text, "a whole number from 0 to 65535")
    return int(text)


def count(text: str) -> int:
    """Return a whole number from 1 on."""
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) < 1:
        raise _wrong(text, "a whole number from 1 to 9999999999")
    return int(text)


def seconds(text: str) -> float:
    """Return a number of seconds from 0 on, which may be infinite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise _wrong(text, "a number of seconds from 0 on")
    return value


def above_0(text: str) -> float:
    """Return a finite number of seconds above 0."""
    value = seconds(text)
    if not 0 < value < 1e9:
        raise _wrong(text, "a number of seconds above 0 and below 1e9")
    return value


def _wrong(text: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{shown(text)}; it has to be {allowed}")
