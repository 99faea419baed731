"""Settings of ours: where they are given, which goes first, and what a wrong one says."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.web import Application

from tests.conftest import Log
from tests.support import Echo, connected, serving
from tornado_ws import HTTPServer, WebSocketClientConnection, check_settings, reconnect, websocket_connect
from tornado_ws.options import DEFAULT_OPTIONS, Options

WRONG = [
    ("close_timeout", -1, "a number of seconds above 0"),
    ("close_timeout", "5", "a number of seconds above 0"),
    ("close_timeout", True, "a number of seconds above 0"),
    ("close_timeout", [], "a number of seconds above 0"),
    ("read_ahead_messages", 0, "a whole number above 0"),
    ("read_ahead_messages", 1.5, "a whole number above 0"),
    ("read_ahead_bytes", -1, "a whole number of bytes above 0"),
    ("read_ahead_bytes", True, "a whole number of bytes above 0"),
    ("write_high_watermark", -1, "a whole number of bytes, 0 or more"),
    ("write_high_watermark", 1e6, "a whole number of bytes, 0 or more"),
    ("write_low_watermark", -1, "a whole number of bytes, 0 or more, or None"),
    ("write_limit", 0, "a whole number of bytes above 0, or None"),
    ("write_limit", "1M", "a whole number of bytes above 0, or None"),
    ("write_limit_policy", "ignore", "one of 'close', 'drop', 'raise', 'latest'"),
    ("write_limit_policy", [], "one of 'close', 'drop', 'raise', 'latest'"),
    ("message_rate_limit", 0, "a number of messages a second above 0, or None"),
    ("message_rate_limit", float("nan"), "a number of messages a second above 0, or None"),
    ("message_rate_limit", "100", "a number of messages a second above 0, or None"),
    ("message_rate_burst", 1.5, "a whole number above 0, or None"),
    ("byte_rate_limit", float("inf"), "a number of bytes a second above 0, or None"),
    ("byte_rate_limit", True, "a number of bytes a second above 0, or None"),
    ("byte_rate_burst", 0, "a whole number of bytes above 0, or None"),
    ("rate_limit_policy", "drop", "one of 'pause', 'close'"),
    ("keepalive_timeout", 0, "a number of seconds above 0, or None"),
    ("keepalive_timeout", float("inf"), "a number of seconds above 0, or None"),
    ("max_lifetime", 0, "a number of seconds above 0, or None"),
    ("idle_timeout", "20", "a number of seconds above 0, or None"),
    ("error_close_code", 1006, "a close code that may be sent, or None"),
    ("error_close_code", "1011", "a close code that may be sent, or None"),
    ("error_close_code", True, "a close code that may be sent, or None"),
    ("keepalive_timeout", "20", "a number of seconds above 0, or None"),
]


async def options_of_server(handler: type[Echo], **settings: Any) -> Options:
    """Return what a connection to ``handler`` has."""
    seen: list[Any] = []

    class Watched(handler):  # type: ignore[misc,valid-type]
        def open(self, *args: str, **kwargs: str) -> None:
            seen.append(self.ws_connection.params.options)

    async with serving(Watched, **settings) as url, connected(url) as conn:
        await conn.write_message("")
        await conn.read_message()
    return seen[0]  # type: ignore[no-any-return]


@pytest.mark.gen_test
async def test_what_nobody_sets_has_its_default() -> None:
    assert await options_of_server(Echo) is DEFAULT_OPTIONS


@pytest.mark.gen_test
async def test_an_attribute_of_the_handler_goes_before_the_setting_of_the_application() -> None:
    class Own(Echo):
        websocket_close_timeout = 1

    assert await options_of_server(Echo, websocket_close_timeout=2) == Options(close_timeout=2)
    assert await options_of_server(Own, websocket_close_timeout=2) == Options(close_timeout=1)


@pytest.mark.gen_test
async def test_an_attribute_may_be_a_property() -> None:
    class Own(Echo):
        @property
        def websocket_close_timeout(self) -> float:
            return float(self.get_argument("timeout", "3"))

    assert await options_of_server(Own) == Options(close_timeout=3)


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_a_wrong_attribute_is_an_error_of_the_class(name: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"websocket_{name} is {value!r}; it has to be {words}")):
        type("Wrong", (Echo,), {f"websocket_{name}": value})


@pytest.mark.gen_test
@pytest.mark.parametrize(("name", "value", "words"), WRONG)
async def test_a_wrong_setting_refuses_the_opening_handshake(name: str, value: Any, words: str, log: Log) -> None:
    async with serving(Echo, **{f"websocket_{name}": value}) as url:
        with pytest.raises(Exception, match="500"):
            await websocket_connect(url)
    (record,) = (record for record in log.records if record.exc_info)
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == f"websocket_{name} is {value!r}; it has to be {words}"


@pytest.mark.gen_test
@pytest.mark.parametrize(("name", "value", "words"), WRONG)
async def test_a_wrong_argument_of_a_client_is_an_error_at_once(name: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name} is {value!r}; it has to be {words}")):
        websocket_connect("ws://127.0.0.1:1/", **{name: value})


TOGETHER = [
    ({"write_low_watermark": 1}, "write_low_watermark is 1; it has to be at most {}write_high_watermark, 0"),
    (
        {"write_high_watermark": 10, "write_low_watermark": 11},
        "write_low_watermark is 11; it has to be at most {}write_high_watermark, 10",
    ),
    (
        {"write_high_watermark": 10, "write_limit": 10},
        "write_limit is 10; it has to be above {}write_high_watermark, 10",
    ),
]


@pytest.mark.gen_test
@pytest.mark.parametrize(("options", "words"), TOGETHER)
async def test_options_that_do_not_go_together(options: dict[str, Any], words: str, log: Log) -> None:
    with pytest.raises(ValueError, match=re.escape(words.format(""))):
        websocket_connect("ws://127.0.0.1:1/", **options)
    async with serving(Echo, **{f"websocket_{name}": value for name, value in options.items()}) as url:
        with pytest.raises(Exception, match="500"):
            await websocket_connect(url)
    (record,) = (record for record in log.records if record.exc_info)
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "websocket_" + words.format("websocket_")


@pytest.mark.gen_test
async def test_the_low_watermark_is_a_quarter_of_the_high_one() -> None:
    assert (await options_of_server(Echo, websocket_write_high_watermark=1000)).low_watermark == 250
    assert DEFAULT_OPTIONS.low_watermark == 0


@pytest.mark.gen_test
async def test_an_argument_that_there_is_not_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="close_timout"):
        websocket_connect("ws://127.0.0.1:1/", close_timout=1)  # type: ignore[call-arg]


@pytest.mark.gen_test
@pytest.mark.parametrize("value", [-1, "1", None, float("nan"), True])
async def test_a_wrong_message_size_is_an_error_that_names_it(value: Any) -> None:
    with pytest.raises(ValueError, match="max_message_size is"):
        websocket_connect("ws://127.0.0.1:1", max_message_size=value)


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout"])
@pytest.mark.parametrize("value", ["1", float("nan"), True])
async def test_wrong_seconds_are_an_error_that_names_them(name: str, value: Any) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} is"):
        websocket_connect("ws://127.0.0.1:1", **options)


@pytest.mark.gen_test
@pytest.mark.parametrize("value", [float("inf"), 1e8, 1 << 80])
async def test_numbers_that_tornado_takes_are_taken(value: Any) -> None:
    async with serving(Echo, websocket_max_message_size=value) as url, connected(url, max_message_size=value) as conn:
        await conn.write_message("x" * 1000)
        assert await conn.read_message() == "x" * 1000


# Before there is a client


def application(**settings: Any) -> Application:
    return Application(**settings)


WRONG_OF_TORNADO = [
    ("ping_interval", "60", "a number of seconds, or None"),
    ("ping_timeout", float("nan"), "a number of seconds, or None"),
    ("max_message_size", -1, "a number of bytes, 0 or more"),
    ("max_connections", "10", "a whole number above 0, or None"),
    ("max_handshakes_per_second", 0, "a whole number above 0, or None"),
]


@pytest.mark.parametrize("check", [HTTPServer, check_settings])
@pytest.mark.parametrize(("name", "value", "words"), [*WRONG, *WRONG_OF_TORNADO])
def test_a_wrong_setting_is_an_error_before_there_is_a_client(check: Any, name: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"websocket_{name} is {value!r}; it has to be {words}")):
        check(application(**{f"websocket_{name}": value}))


@pytest.mark.gen_test
async def test_a_wrong_setting_is_told_at_the_first_request_of_a_handler_and_used_by_none_that_has_its_own(
    log: Log,
) -> None:
    class Own(Echo):
        ping_interval = 60

    settings: dict[str, Any] = {"websocket_ping_interval": "60", "websocket_write_limitt": 1}
    async with serving([("/", Own)], **settings) as url:
        for _ in range(2):
            await AsyncHTTPClient().fetch(url.replace("ws:", "http:"), raise_error=False)
            async with connected(url):
                pass
    assert [record.getMessage() for record in log.records if record.levelno >= logging.WARNING] == [
        "the setting websocket_write_limitt has no effect; did you mean websocket_write_limit?",
        "wrong setting of the application: websocket_ping_interval is '60'; it has to be a number of seconds, or None",
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("websocket_write_limitt", "websocket_write_limit"),
        ("websocket_ping_intervall", "websocket_ping_interval"),
        ("websocket_pinginterval", "websocket_ping_interval"),
        ("websoket_ping_interval", "websocket_ping_interval"),
        ("websocket_Max_Connections", "websocket_max_connections"),
    ],
)
def test_a_name_that_resembles_a_setting_is_told(name: str, meant: str, log: Log) -> None:
    check_settings(application(**{name: 1}))
    type("Handler", (Echo,), {name: 1})
    assert log.lines == [f"the {kind} {name} has no effect; did you mean {meant}?" for kind in ("setting", "attribute")]


def test_settings_of_others_and_right_ones_are_not_told(log: Log) -> None:
    others = {"websocket_url": 1, "websocket_compression": True, "ping_intervall": 1, "webserver": "", "debug": False}
    check_settings(application(**others, websocket_ping_interval=None))
    assert log.lines == []


def test_seconds_below_0_are_taken_and_told(log: Log) -> None:
    check_settings(application(websocket_ping_interval=-1))
    assert log.lines == ["the setting websocket_ping_interval is -1; it counts as 0, as in Tornado"]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ping_intervall", "; did you mean 'ping_interval'?"),
        ("write_limitt", "; did you mean 'write_limit'?"),
        ("header", "; did you mean 'headers'?"),
        ("nonsense", ""),
    ],
)
async def test_an_unknown_argument_of_a_client_is_named(name: str, hint: str) -> None:
    arguments: dict[str, Any] = {name: 1}
    text = f"() got an unexpected argument {name!r}{hint}"
    with pytest.raises(TypeError, match=re.escape("websocket_connect" + text) + "$"):
        websocket_connect("ws://127.0.0.1:1/", **arguments)
    with pytest.raises(TypeError, match=re.escape("websocket_connect" + text) + "$"):
        async for _ in reconnect("ws://127.0.0.1:1/", **arguments):
            pass
    with pytest.raises(TypeError, match=re.escape("WebSocketClientConnection" + text) + "$"):
        WebSocketClientConnection(HTTPRequest("ws://127.0.0.1:1/"), **arguments)
