"""What the arguments of `connect` and `bench` are for `websocket_connect`, and what its errors are as exit statuses."""

from __future__ import annotations

import argparse
import ssl
from typing import Any

from tornado.httpclient import HTTPError

from tornado_ws.cli import statuses
from tornado_ws.errors import HandshakeError
from tornado_ws.escaping import shown, without_password

#: What connecting raises when there is no connection. ValueError is for wrong arguments.
CONNECT_ERRORS = (OSError, HTTPError, HandshakeError)


def connect_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return arguments of `websocket_connect`. Raises ValueError for a file of certificates that cannot be used."""
    arguments: dict[str, Any] = {
        "url": options.url,
        "headers": options.header,
        "connect_timeout": options.timeout,
        # As other programs for the command line do: the environment's, if there is one.
        "proxy": False if options.no_proxy else options.proxy or True,
        "subprotocols": options.subprotocol or None,
        "compression_options": {} if options.compress else None,
    }
    if options.insecure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        arguments["ssl_options"] = context
    elif options.cafile is not None:
        try:
            arguments["ssl_options"] = ssl.create_default_context(cafile=options.cafile)
        except OSError as error:
            text = f"--cafile {shown(options.cafile)}: {error.strerror or error}; it has to be a file of PEM"
            raise ValueError(text) from error
    return arguments


def status_of(error: BaseException) -> int:
    """Return the exit status for one of `CONNECT_ERRORS`."""
    return statuses.REFUSED if isinstance(error, HandshakeError) else statuses.UNREACHABLE


def words(url: str, error: BaseException) -> str:
    """Return what to say of one of `CONNECT_ERRORS`, without secrets in the URL."""
    return f"no connection to {without_password(url)}: {error or type(error).__name__}"
