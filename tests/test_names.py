"""Names: those that have to be importable from here, and those that subclasses have for themselves."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import tornado
import tornado.web
from tornado import gen, httpclient, httputil, simple_httpclient
from tornado.concurrent import Future
from tornado.escape import native_str, to_unicode, utf8
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError
from tornado.log import app_log, gen_log
from tornado.queues import Queue

import tornado_ws
from tests.peer import raw_client
from tests.support import Echo, connected, disconnect, serving, until
from tests.wire import CLOSE, PING, PONG, TEXT, Frame
from tornado_ws import WebSocketHandler

_OWN_NAMES = """
    WebSocketHandler WebSocketClientConnection websocket_connect WebSocketError WebSocketClosedError WebSocketProtocol
    WebSocketProtocol13 _WebSocketParams _WebSocketDelegate _PerMessageDeflateCompressor
    _PerMessageDeflateDecompressor _DecompressTooLargeError _default_max_message_size
    _raise_not_supported_for_websockets
"""
OWN_NAMES = _OWN_NAMES.split()

#: What packages import through the module, though it is made elsewhere in Tornado.
BORROWED = {
    "StreamClosedError": StreamClosedError,
    "IOStream": IOStream,
    "IOLoop": IOLoop,
    "Future": Future,
    "Queue": Queue,
    "httpclient": httpclient,
    "httputil": httputil,
    "simple_httpclient": simple_httpclient,
    "gen": gen,
    "gen_log": gen_log,
    "app_log": app_log,
    "utf8": utf8,
    "to_unicode": to_unicode,
    "native_str": native_str,
}

#: What published packages define on their subclasses of WebSocketHandler, or set on instances of them.
_TAKEN_NAMES = """
    DEFAULT_RELOAD_TIME _async_open _background_tasks _blocking_io_executor _build_proxy_request _cache
    _check_host_allowlist _clean_room _cleanup_delay _component_constructor _compression_level _cookies
    _create_ws_connection _current_user _detach _dispatch_future _document_load_progressively _document_save_delay
    _emit _emit_awareness_event _enable_output_logging _encode_json_message _execution_data _executor
    _file_id_manager _file_loaders _get_context_path _get_message_summary _handle _handler _http_ready_func
    _internal_error _jupyter_current_user _kernel_id _last_reload_time _logger _maybe_auth _mem_level _message_queue
    _messages_wrote _notebook_output_delay_threshold_mb _on_global_awareness_event _ping_sent _protocol_error
    _proxy_buffered _proxy_progressive _realize_rendered_template _receive _record_activity _render_template
    _requested_subprotocols _rewrite_location_header _room_id _room_lock _room_locks _runtime _schedule _send_tasks
    _session_file_lock _session_id _token _token_authenticated _url_prefix _user_command _waiters _websocket_server
    _xsrf_token _ystore_class abort_connection absolute_url active allow_credentials allow_draft76 allow_offload
    allow_origin allow_origin_pat allowed_origins app application_context auth auth_resource authenticate auto_decode
    bridge broadcast broadcast_layouts bson_only_mode check_host check_referer check_request client_id
    clients_connected closed comm command conditional_start config config_manager connection connections
    contents_js_source contents_manager context create_task custom_headers default_url delay_between_messages
    deserialize eid ensure_process env_path event_listener event_logger exclude_last_activity_patterns executor extra
    fignum fileid_manager fragment_timeout gateway get_app get_cdn get_client_addr get_client_uri get_cmd
    get_conn_info get_context_addr get_cwd get_env get_json_body get_messages get_next_message get_origin
    get_real_client_addr get_redirect_url get_request_headers_override get_template get_timeout get_value handler
    host_allowlist html http_get hub_groups hub_users incoming_queue is_forbidden is_running jinja_template_vars
    kernel_id kernel_manager kernel_spec_manager kernel_websocket_connection_class language_server last_ping last_pong
    last_read_time latest_pong listener live_css log log_terminal_output login_enabled loop manager mappath
    mathjax_config mathjax_url messages name node_handle on_open on_pty_died on_pty_read origin_check origin_policy
    path ping_callback plugin poll_tasks polling port pre_get prewrite_message process_args protocol proxy proxy_base
    proxy_open proxy_request_headers proxy_request_options q queue readonly receive_queue receiver recv recv_nowait
    reload_waiters render_template requested_port requested_unix_socket resolvers rewrite_response room room_id send
    send_binary send_complete send_json send_json_message send_message send_pack send_ping send_updates server
    serverapp session session_closed session_manager set_attachment_header set_cors_headers sid size
    socket_wrap_monitor_thread sources src_addr start_process start_tasks state stdin_to_ptyproc stream sub_statuses
    subs subscription_server supports_binary template_namespace term_manager term_name terminal terminal_manager
    token_authenticated unix_socket unregister_timeout update_last_activity use_compression version_hash waiters
    watcher worker_ref write_forward_msg write_lock ws ws_proto ws_transp ws_url yroom yroom_manager
"""
TAKEN_NAMES = _TAKEN_NAMES.split()


@pytest.mark.parametrize("name", OWN_NAMES)
def test_name_is_importable(name: str) -> None:
    assert getattr(tornado_ws, name) is not None


def test_a_server_does_not_import_what_it_does_not_ask_for() -> None:
    program = "import sys, tornado_ws; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "tornado_ws.server.handler" in imported
    late = {"tornado_ws.client.connection", "tornado_ws.client.reconnect", "tornado_ws.observing.counters"}
    assert not imported & {*late, "tornado.simple_httpclient"}


def test_a_client_does_not_import_what_it_does_not_ask_for() -> None:
    program = "import sys; from tornado_ws import reconnect, websocket_connect; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "tornado_ws.client.reach" in imported
    assert not imported & {"tornado_ws.client.attempts", "http.cookiejar", "python_socks"}


def test_names_for_clients_are_listed_before_anybody_asks_for_one() -> None:
    program = "import tornado_ws; print(*dir(tornado_ws))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {*tornado_ws.__all__, "Queue", "TCPClient", "simple_httpclient"} <= set(done.stdout.split())


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tornado_ws' has no attribute 'nothing'"):
        getattr(tornado_ws, "nothing")  # noqa: B009


@pytest.mark.parametrize("name", BORROWED)
def test_borrowed_name_is_tornados_own(name: str) -> None:
    assert getattr(tornado_ws, name) is BORROWED[name]


# `_default_max_message_size`, which packages assign to


@pytest.mark.gen_test
async def test_default_max_message_size_is_read_when_a_connection_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration files of Jupyter assign to it long after handlers were imported."""
    async with serving(Echo) as url:
        async with connected(url) as conn:
            await conn.write_message("x" * 200)
            assert await conn.read_message() == "x" * 200
        monkeypatch.setattr(tornado_ws, "_default_max_message_size", 100)
        async with connected(url) as conn:
            await conn.write_message("x" * 100)
            assert await conn.read_message() == "x" * 100
            await conn.write_message("x" * 101)
            assert await conn.read_message() is None
            assert conn.close_code == 1009


@pytest.mark.gen_test
async def test_a_setting_wins_over_default_max_message_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tornado_ws, "_default_max_message_size", 100)
    async with serving(Echo, websocket_max_message_size=200) as url, connected(url) as conn:
        await conn.write_message("x" * 200)
        assert await conn.read_message() == "x" * 200


# `install()`: code that is not ours


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Whoever imported Tornado's module before in this process would be a reason for install() to refuse.
    monkeypatch.delitem(sys.modules, "tornado.websocket", raising=False)
    monkeypatch.delattr(tornado, "websocket", raising=False)
    tornado_ws.install()
    yield
    tornado_ws.uninstall()


IMPORTS: dict[str, Callable[[], Any]] = {
    "import tornado.websocket": lambda: __import__("tornado.websocket").websocket,
    "from tornado import websocket": lambda: __import__("tornado", fromlist=["websocket"]).websocket,
    "tornado.websocket": lambda: tornado.websocket,
    "import_module": lambda: importlib.import_module("tornado.websocket"),
}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("statement", IMPORTS)
def test_every_kind_of_import_gives_ours(statement: str) -> None:
    module: ModuleType = IMPORTS[statement]()
    for name in OWN_NAMES:
        assert getattr(module, name) is getattr(tornado_ws, name)


@pytest.mark.gen_test
@pytest.mark.usefixtures("installed")
async def test_isinstance_and_except_in_code_that_is_not_ours() -> None:
    """panel asks ``isinstance(x, tornado.websocket.WebSocketHandler)``; jupyterhub catches its WebSocketClosedError."""
    outcomes: list[str] = []

    def log_request(handler: tornado.web.RequestHandler) -> None:
        import tornado.websocket

        outcomes.append("websocket" if isinstance(handler, tornado.websocket.WebSocketHandler) else "http")

    async def send_to_closed(conn: Any) -> None:
        import tornado.websocket
        from tornado.websocket import WebSocketClosedError

        for caught in (tornado.websocket.WebSocketClosedError, WebSocketClosedError, tornado.websocket.WebSocketError):
            try:
                await conn.write_message("too late")
            except caught:
                outcomes.append("caught")

    class Handler(Echo):
        def on_close(self) -> None:
            log_request(self)

    async with serving(Handler) as url, connected(url) as conn:
        await disconnect(conn)
        await send_to_closed(conn)
        await until(lambda: len(outcomes) == 4)
    assert outcomes.count("caught") == 3
    assert outcomes.count("websocket") == 1


@pytest.mark.gen_test
@pytest.mark.usefixtures("installed")
async def test_handlers_and_clients_made_of_the_installed_module_are_ours() -> None:
    from tornado.websocket import WebSocketHandler as Installed
    from tornado.websocket import websocket_connect as connect

    class Handler(Installed):
        def on_message(self, message: str | bytes) -> None:
            self.write_message(message)

    async with serving(Handler) as url:
        conn: Any = await connect(url)
        assert isinstance(conn, tornado_ws.WebSocketClientConnection)
        await conn.write_message("x")
        assert await conn.read_message() == "x"
        await disconnect(conn)


def test_uninstall_gives_tornados_module_back() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.delitem(sys.modules, "tornado.websocket", raising=False)
        patched.delattr(tornado, "websocket", raising=False)
        tornado_ws.install()
        tornado_ws.uninstall()
        theirs = importlib.import_module("tornado.websocket")
        assert theirs.WebSocketHandler.__module__ == "tornado.websocket"
        assert theirs.WebSocketHandler is not WebSocketHandler


# names that subclasses already use


class Touched:
    """A class attribute that notes who reads it and who sets it."""

    def __init__(self, touches: list[str]) -> None:
        self.touches = touches

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type | None = None) -> object:
        self.touches.append(f"{self.name} was read")
        return self

    def __set__(self, instance: object, value: object) -> None:
        self.touches.append(f"{self.name} was set")


class Recorder(WebSocketHandler):
    events: list[Any]

    def open(self, *args: str) -> None:
        self.events = self.settings["events"]
        self.events.append(("open", *args))

    def on_message(self, message: str | bytes) -> Any:
        return self.write_message(message, binary=isinstance(message, bytes))

    def on_ping(self, data: bytes) -> None:
        self.events.append(("ping", data))
        self.ping(data)

    def on_pong(self, data: bytes) -> None:
        self.events.append(("pong", data))

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def on_close(self) -> None:
        self.events.append(("close", self.close_code, self.close_reason))


def names_left() -> list[str]:
    return [name for name in TAKEN_NAMES if not hasattr(tornado.web.RequestHandler, name)]


def class_attributes(touches: list[str]) -> type[Recorder]:
    return type("ClassAttributes", (Recorder,), {name: object() for name in names_left()})


def instance_attributes(touches: list[str]) -> type[Recorder]:
    def initialize(self: Recorder) -> None:
        for name in names_left():
            setattr(self, name, object())

    return type("InstanceAttributes", (Recorder,), {"initialize": initialize})


def attributes_set_before_the_constructor(touches: list[str]) -> type[Recorder]:
    """As distributed and bokeh do it, which have a constructor of their own."""

    def __init__(self: Recorder, *args: Any, **kwargs: Any) -> None:
        values = {name: object() for name in names_left()}
        vars(self).update(values)
        Recorder.__init__(self, *args, **kwargs)
        touches.extend(f"{name} was set" for name in names_left() if getattr(self, name) is not values[name])

    return type("SetBeforeTheConstructor", (Recorder,), {"__init__": __init__})


def watched_attributes(touches: list[str]) -> type[Recorder]:
    return type("WatchedAttributes", (Recorder,), {name: Touched(touches) for name in names_left()})


def test_no_taken_name_is_in_our_handler() -> None:
    ours = set(dir(WebSocketHandler)) - set(dir(tornado.web.RequestHandler))
    assert not ours & set(TAKEN_NAMES)
    assert len(names_left()) > 0.95 * len(TAKEN_NAMES)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "make", [class_attributes, instance_attributes, attributes_set_before_the_constructor, watched_attributes]
)
async def test_subclass_with_every_taken_name_works(make: Callable[[list[str]], type[Recorder]]) -> None:
    touches: list[str] = []
    events: list[Any] = []
    async with serving([(r"/(\w+)", make(touches))], events=events) as url:
        async with connected(f"{url}/room", compression_options={}, subprotocols=["chat"]) as conn:
            for message in ("text", b"\x00\xff", "x" * 100_000):
                await conn.write_message(message, binary=isinstance(message, bytes))
                assert await conn.read_message() == message
            conn.ping(b"payload")
            await until(lambda: ("pong", b"payload") in events)
            conn.close(4000, "bye")
            await until(lambda: len(events) == 4)
        async with raw_client(f"{url}/raw") as client:
            await client.send_frame(TEXT, b"\xff")
            ended = [await client.receive() for _ in range(2)]
            assert ended[-1] is None
            await until(lambda: len(events) == 6)
    assert events[:4] == [("open", "room"), ("ping", b"payload"), ("pong", b"payload"), ("close", 4000, "bye")]
    assert events[4] == ("open", "raw")
    assert touches == []


@pytest.mark.gen_test
@pytest.mark.parametrize("make", [class_attributes, watched_attributes])
async def test_keepalive_of_a_subclass_with_every_taken_name_works(
    make: Callable[[list[str]], type[Recorder]],
) -> None:
    touches: list[str] = []
    events: list[Any] = []
    settings: dict[str, Any] = {"events": events, "websocket_ping_interval": 0.02, "websocket_ping_timeout": 0.02}
    async with serving([(r"/(\w+)", make(touches))], **settings) as url, raw_client(f"{url}/raw") as client:
        assert await client.receive() == Frame(PING, b"")
        await client.send_frame(PONG)
        while (frame := await client.receive()) is not None and frame.opcode == PING:
            pass
        await client.send_frame(CLOSE)
        await until(lambda: events[-1][0] == "close")
    assert touches == []
