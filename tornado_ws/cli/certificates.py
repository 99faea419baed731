"""A certificate for one run of a server."""

from __future__ import annotations

import os
import ssl

from tornado_ws.escaping import shown


def self_signed(host: str, ca_file: str | None) -> ssl.SSLContext:
    """Return the context of a server for ``host`` and localhost, and write who has signed that to ``ca_file`` (PEM).

    Raises ImportError without trustme, and ValueError where the file cannot be written.
    """
    try:
        import trustme
    except ImportError as error:
        raise ImportError(f"--tls-self-signed needs trustme: pip install 'tornado_ws[cli]' ({error})") from error
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = dict.fromkeys([host, "localhost", "127.0.0.1", "::1"])
    authority.issue_cert(*filter(None, names)).configure_cert(context)
    if ca_file is not None:
        try:
            # Nothing secret: the key of the authority is nowhere but in this process.
            authority.cert_pem.write_to_path(os.fspath(ca_file))
        except OSError as error:
            raise ValueError(f"--save-ca {shown(ca_file)}: {error.strerror}") from error
    return context
