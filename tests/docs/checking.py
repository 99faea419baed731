"""Blocks that are no Python: each is given to the program that reads it, or parsed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import trustme
import yaml

from tests.docs.commands import check_session
from tests.needs import need
from tests.ports import unused_port
from tests.support import PATIENCE

#: Where Debian has daemons, which is not in the path of every user.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def program_of(name: str) -> str:
    """Return the path of a program, which the machine needs."""
    program = shutil.which(name, path=_PATH)
    need(program, name)
    assert program is not None
    return program


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def nginx_file(code: str, folder: Path, certificate: trustme.LeafCert, port: int) -> Path:
    """Write settings of nginx, whole or a part, with what stands elsewhere on the reader's machine."""
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    code = re.sub(r"(ssl_certificate) [^;]+", rf"\1 {folder}/cert.pem", code)
    code = re.sub(r"(ssl_certificate_key) [^;]+", rf"\1 {folder}/key.pem", code)
    code = re.sub(r"listen \d+", f"listen 127.0.0.1:{port}", code)
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", *_PROXIED))
    file = folder / "nginx.conf"
    file.write_text(
        f"pid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{code}}}\n"
    )
    return file


_PROXIED = ("proxy", "fastcgi", "uwsgi", "scgi")


def _nginx(code: str, folder: Path) -> None:
    program = program_of("nginx")
    file = nginx_file(code, folder, trustme.CA().issue_cert("example.com"), unused_port())
    _run(program, "-t", "-p", folder, "-c", file)


def _haproxy(code: str, folder: Path) -> None:
    program = program_of("haproxy")
    # A part of a file has nothing that listens, without which HAProxy does not start.
    (folder / "haproxy.cfg").write_text(code if "bind" in code else f"{code}\nfrontend part\n    bind 127.0.0.1:1\n")
    _run(program, "-c", "-f", folder / "haproxy.cfg")


def _unit(code: str, folder: Path) -> None:
    """Have systemd verify a unit; the programs that it names are on the reader's machine."""
    program = program_of("systemd-analyze")
    code = re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/true", code, flags=re.MULTILINE)
    kind = "socket" if "[Socket]" in code else "service"
    (folder / f"app.{kind}").write_text(code)
    if kind == "socket":
        (folder / "app.service").write_text("[Service]\nExecStart=/bin/true\n")
    # What it does not know it only says, and it speaks of the units of this machine too.
    said = _run(program, "verify", "--man=no", folder / f"app.{kind}")
    assert str(folder) not in said, said


def _javascript(code: str, folder: Path) -> None:
    program = program_of("node")
    (folder / "block.mjs").write_text(code)
    _run(program, "--check", folder / "block.mjs")


class _Page(HTMLParser):
    """What is open, and the scripts."""

    VOID = ("meta", "link", "input", "br", "img", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag, f"</{tag}> ends another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def _html(code: str, folder: Path) -> None:
    page = _Page()
    page.feed(code)
    page.close()
    assert not page.open, f"{page.open} are not closed"
    for script in page.scripts:
        _javascript(script, folder)


_INSTRUCTIONS = {"FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "EXPOSE", "CMD", "HEALTHCHECK", "STOPSIGNAL"}


def _dockerfile(code: str, folder: Path) -> None:
    """Check the instructions, and that those in brackets are JSON: there is no Docker here to build it."""
    instructions = [line for line in code.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    assert instructions[0].startswith("FROM ")
    for instruction in instructions:
        name, _, argument = instruction.partition(" ")
        assert name in _INSTRUCTIONS, f"Docker has no {name}"
        if argument.startswith("["):
            json.loads(argument)


def _yaml(code: str, folder: Path) -> None:
    for document in yaml.safe_load_all(code):
        assert isinstance(document, dict)


def _json(code: str, folder: Path) -> None:
    json.loads(code)


def _console(code: str, folder: Path) -> None:
    check_session(code)


#: Those of languages that do not go with the rest of their page.
CHECKS: dict[str, Callable[[str, Path], None]] = {
    "console": _console,
    "dockerfile": _dockerfile,
    "haproxy": _haproxy,
    "html": _html,
    "ini": _unit,
    "js": _javascript,
    "json": _json,
    "nginx": _nginx,
    "yaml": _yaml,
}
