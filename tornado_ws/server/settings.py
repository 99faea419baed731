"""The settings of an application, as a whole: which are wrong, and which are not the ones that were meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tornado.log import app_log, gen_log
from tornado.web import Application

from tornado_ws.options import checked_count, checked_message_size, checked_seconds, handler_options, log_near_misses

_CHECKS: dict[str, Callable[[str, Any], object]] = {
    "websocket_ping_interval": checked_seconds,
    "websocket_ping_timeout": checked_seconds,
    "websocket_max_message_size": checked_message_size,
    "websocket_max_connections": checked_count,
    "websocket_max_handshakes_per_second": checked_count,
}


def check_settings(application: Application) -> None:
    """Check the ``websocket_`` settings of an application before there is a client.

    `.HTTPServer` does it by itself. With Tornado's own server nothing of this package is called before the first
    request of a handler; then the log has what is wrong.

    What may be meant otherwise is a line at WARNING in the log ``tornado.general``: a name that resembles that of a
    setting, and seconds below 0, which are none in Tornado.

    :param application: the `.Application`. What its handlers' classes have is checked when they are made.
    :raises ValueError: for a wrong value, with its name and what is allowed.
    """
    for error in _wrong(application.settings):
        raise error


def log_wrong_settings(settings: Mapping[str, Any]) -> None:
    """Do what `check_settings` does with an error in the log: a handler of an application may not use the setting."""
    for error in _wrong(settings):
        app_log.error("wrong setting of the application: %s", error)


def _wrong(settings: Mapping[str, Any]) -> Iterator[ValueError]:
    log_near_misses("setting", settings)
    try:
        handler_options(None, settings)
    except ValueError as error:
        yield error
    for name, check in _CHECKS.items():
        value = settings.get(name)
        try:
            if name in settings:
                check(name, value)
        except ValueError as error:
            yield error
        else:
            if value is not None and value < 0:
                gen_log.warning("the setting %s is %r; it counts as 0, as in Tornado", name, value)
