"""Commands that a page shows: what they name has to exist. Of programs of others a shell checks the syntax."""

from __future__ import annotations

import configparser
import functools
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator

from tests.programs import ROOT, run
from tornado_ws.cli.arguments import parser

_ASSIGNED = re.compile(r"[A-Z_]+=")
_COMMENT = re.compile(r"(^|\s+)# .*$", re.MULTILINE)


def commands_of(code: str) -> Iterator[str]:
    """Return the commands of a block, one for each line that a backslash does not go on from."""
    for line in _COMMENT.sub("", code).replace("\\\n", " ").splitlines():
        if line.strip():
            yield line.strip()


def check_command(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)
    words = shlex.split(command)
    while _ASSIGNED.match(words[0]):
        words.pop(0)
    if words[0] == "make":
        _check_make(words[1:])
    elif words[:2] == ["python", "-m"]:
        _check_module(words[2], words[3:])
    elif words[:2] == ["pip", "install"]:
        _check_install(words[2:])
    elif words[0] == "tornado-ws" and words[1] != "run":
        parser("tornado-ws").parse_args(words[1:])
    elif words[0] == "python":
        assert words[1] == "-c" or (ROOT / words[1]).exists(), f"{command}: there is no {words[1]}"


def check_session(code: str) -> None:
    """Check what is typed at the prompt of a shell, each part of a pipe."""
    for line in code.splitlines():
        if line.startswith("$ "):
            for part in re.split("[|<]", line[2:]):
                check_command(part.strip())


def _check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, assigned, _ = word.partition("=")
        pattern = rf"^{re.escape(name)} *\??=" if assigned else rf"^{re.escape(name)}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile has no {name}"


def _check_module(module: str, arguments: list[str]) -> None:
    assert importlib.util.find_spec(module), f"there is no module {module}"
    # What has no help is a program of others.
    if (ROOT / module.split(".")[0]).is_dir() and module != "tornado_ws.run":
        words = [word for word in arguments if not word.startswith("-")]
        text = _help(module)
        if words and re.search(rf"\b{re.escape(words[0])}\b", text):
            text += _help(module, words[0])
        for argument in arguments:
            if argument.startswith("--"):
                option = argument.partition("=")[0]
                assert option in text, f"python -m {module} has no {option}"


@functools.cache
def _help(*words: str) -> str:
    done = run("-m", *words, "--help")
    assert done.returncode == 0, done.stderr
    return done.stdout


def _check_install(words: list[str]) -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = settings["options.extras_require"]
    for word in words:
        for extra in re.findall(r"tornado_ws\[(.*?)\]", word):
            for name in extra.split(","):
                assert name in extras, f"setup.cfg has no extra {name}"
