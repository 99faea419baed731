"""Arguments that are wrong, and what is said of them."""

from __future__ import annotations

import pytest

from tests.programs import run
from tornado_ws.cli.arguments import parser


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["connect"], "required: URL"),
        (["connect", "ws://a", "--header", "a b: c"], "'a b: c'; it has to be 'NAME: VALUE'"),
        (["connect", "ws://a", "--header", "Name"], "'Name'; it has to be 'NAME: VALUE'"),
        (["connect", "ws://a", "--header", "Name: a\nb"], r"'Name: a\nb'; it has to be 'NAME: VALUE'"),
        (["connect", "ws://a", "--header", "Name: €"], "it has to be 'NAME: VALUE', the name a token of RFC 9110"),
        (["connect", "ws://a", "--subprotocol", "a,b"], "'a,b'; it has to be a token of RFC 9110"),
        (["connect", "ws://a", "--timeout", "0"], "'0'; it has to be a number of seconds above 0"),
        (["connect", "ws://a", "--timeout", "inf"], "'inf'; it has to be a number of seconds above 0"),
        (["connect", "ws://a", "--wait", "nan"], "'nan'; it has to be a number of seconds from 0 on"),
        (["connect", "ws://a", "--insecure", "--cafile", "a"], "not allowed with argument --insecure"),
        (["connect", "ws://a", "--proxy", "a", "--no-proxy"], "not allowed with argument --proxy"),
        (["bench", "ws://a", "--size", "-1"], "'-1'; it has to be a whole number from 1"),
        (["bench", "ws://a", "--seconds", "1", "--messages", "1"], "not allowed with argument --seconds"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser("tornado-ws").parse_args(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: tornado-ws ")
    assert said in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["connect", "localhost:80"], "URL has scheme 'localhost'; allowed are ws and wss: 'localhost:80'"),
        (["bench", "ws://"], "URL has no host, or a port that is no number from 0 to 65535: 'ws://'"),
        (["connect", "ws://a", "--proxy", "a"], "proxy is 'a'; it has to begin with the scheme of a proxy and ://"),
        (["connect", "ws://a", "--reconnect", "--proxy", "a"], "proxy is 'a'; it has to begin"),
    ],
)
def test_what_the_library_refuses(arguments: list[str], said: str) -> None:
    result = run("-m", "tornado_ws", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"tornado_ws: {said}")


def test_it_is_not_imported_with_the_package() -> None:
    result = run(
        "-c", "import sys, tornado_ws; print([name for name in sys.modules if name.startswith('tornado_ws.cli')])"
    )
    assert result.stdout == "[]\n"
