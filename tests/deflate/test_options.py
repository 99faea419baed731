"""What ``get_compression_options`` and ``compression_options`` may hold, and what a wrong value says."""

from __future__ import annotations

import gc
import logging
import re
import threading
import weakref
import zlib
from typing import Any

import pytest

from tests.support import run_side_by_side
from tornado_ws.deflate import backends
from tornado_ws.deflate.options import (
    DEFAULT_DEFLATE_OPTIONS,
    DeflateOptions,
    _shared,
    _warn_of_container,
    deflate_options,
)

WRONG: list[tuple[str, Any, str]] = [
    ("compression_level", 10, "a level from 0 to 9"),
    ("compression_level", "6", "a level from 0 to 9"),
    ("compression_level", True, "a level from 0 to 9"),
    ("mem_level", 0, "a level from 1 to 9"),
    ("mem_level", None, "a level from 1 to 9"),
    ("mem_level", 8.0, "a level from 1 to 9"),
    ("max_wbits", 8, "a number of bits from 9 to 15"),
    ("max_wbits", 16, "a number of bits from 9 to 15"),
    ("client_max_wbits", -15, "a number of bits from 9 to 15"),
    ("server_no_context_takeover", 1, "True or False"),
    ("client_no_context_takeover", "yes", "True or False"),
    ("threshold", -1, "a number of bytes"),
    ("threshold", None, "a number of bytes"),
    ("strategy", 5, "a strategy of zlib's, 0 to 4"),
    ("backend", "brotli", "one of zlib, zlib_ng, isal, auto"),
    ("backend", [], "one of zlib, zlib_ng, isal, auto"),
    ("max_ratio", 0.5, "a number from 1 on, or None"),
    ("max_ratio", float("inf"), "a number from 1 on, or None"),
    ("offload_size", -1, "a number of bytes, or None"),
    ("offload_size", 1.5, "a number of bytes, or None"),
    ("takeover_memory", -1, "a number of bytes"),
]


@pytest.mark.parametrize(("key", "value", "words"), WRONG)
def test_a_wrong_value_names_its_key_and_what_is_accepted(key: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"compression option {key} is {value!r}; it has to be {words}")):
        deflate_options({key: value})


def test_a_level_or_strategy_that_the_backend_lacks() -> None:
    with pytest.raises(ValueError, match="compression option compression_level is 4; backend 'isal' has 0 to 3"):
        deflate_options({"backend": "isal", "compression_level": 4})
    with pytest.raises(ValueError, match="compression option strategy is 1; backend 'isal' has no other than"):
        deflate_options({"backend": "isal", "strategy": zlib.Z_FILTERED})


@pytest.mark.parametrize(("name", "package"), [("zlib_ng", "zlib-ng"), ("isal", "isal")])
def test_a_backend_that_is_not_installed_says_what_to_install(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_find", lambda name: None)
    # Not the values of another test, which are remembered.
    with pytest.raises(ValueError, match=f"compression option backend is '{name}', .*pip install {package}, or"):
        deflate_options({"backend": name, "takeover_memory": 1})


def test_every_option_of_the_class_is_checked() -> None:
    defaults = {name: getattr(DEFAULT_DEFLATE_OPTIONS, name) for name in DeflateOptions.__annotations__}
    assert deflate_options(defaults) == DEFAULT_DEFLATE_OPTIONS
    assert {key for key, _, _ in WRONG} == set(defaults)


def test_equal_options_are_one_object() -> None:
    assert deflate_options({}) is deflate_options(None) is DEFAULT_DEFLATE_OPTIONS
    first = deflate_options({"mem_level": 9, "threshold": 100})
    assert first is deflate_options({"mem_level": 9, "threshold": 100})
    assert first is not deflate_options({"mem_level": 9, "threshold": 101})
    assert deflate_options(first) is first


def test_an_unknown_key_has_no_effect_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tornado.general"):
        assert deflate_options({"compresion_level": 1}) is DEFAULT_DEFLATE_OPTIONS
        assert deflate_options({"compresion_level": 2}) is DEFAULT_DEFLATE_OPTIONS
    (line,) = (record.getMessage() for record in caplog.records)
    assert "'compresion_level' is not known" in line
    assert "compression_level" in line


@pytest.mark.parametrize("given", ["{}", "on", '{"mem_level": 9}', ["x"], ("mem_level",), {"threshold"}, b"{}"])
def test_another_container_than_a_dict_stands_for_an_empty_one(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    _warn_of_container.cache_clear()
    with caplog.at_level(logging.WARNING, "tornado.general"):
        assert deflate_options(given) is DEFAULT_DEFLATE_OPTIONS
        assert deflate_options(given) is DEFAULT_DEFLATE_OPTIONS
    (line,) = (record.getMessage() for record in caplog.records)
    assert f"of type {type(given).__name__}, which holds none" in line


@pytest.mark.parametrize("given", [[], (), "", 0, False])
def test_what_is_empty_stands_for_an_empty_dict(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert deflate_options(given) is DEFAULT_DEFLATE_OPTIONS
    assert not caplog.records


@pytest.mark.parametrize("given", [1, True, object()])
def test_what_holds_nothing_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"compression options are {given!r}; they have to be a dict")):
        deflate_options(given)


def test_any_number_of_option_sets_in_use_have_one_takeover_memory_each() -> None:
    used = [deflate_options({"threshold": number}) for number in range(1000)]
    again = [deflate_options({"threshold": number}) for number in range(1000)]
    assert all(options.live is other.live for options, other in zip(used, again, strict=True))
    assert len({id(options.live) for options in used}) == 1000


def test_option_sets_that_nobody_uses_are_forgotten() -> None:
    gone = weakref.ref(deflate_options({"threshold": 123_456}))
    before = len(_shared)
    gc.collect()
    assert gone() is None
    for number in range(1000):
        deflate_options({"threshold": 10_000 + number})
    assert len(_shared) <= before


def test_threads_that_make_equal_options_at_once_share_them() -> None:
    number_of_threads = 8
    barrier = threading.Barrier(number_of_threads)
    made: list[list[DeflateOptions]] = [[] for _ in range(number_of_threads)]

    def make(into: list[DeflateOptions]) -> None:
        barrier.wait()
        into.extend(deflate_options({"threshold": 20_000 + number}) for number in range(200))

    run_side_by_side([threading.Thread(target=make, args=(into,)) for into in made])
    assert all(len({id(options.live) for options in equal}) == 1 for equal in zip(*made, strict=True))


# Which library "auto" is, where the native engine goes on with one of zlib-ng's streams, and where it does not

AUTO: list[tuple[tuple[str, ...], dict[str, int], tuple[str, int], tuple[str, int], str]] = [
    (("zlib_ng", "isal"), {}, ("zlib_ng", 1), ("isal", 1), "isal"),
    (("isal",), {}, ("isal", 1), ("isal", 1), "isal"),
    (("zlib_ng",), {}, ("zlib_ng", 2), ("zlib_ng", 2), "zlib_ng"),
    ((), {}, ("zlib", 6), ("zlib", 6), "zlib"),
    (("zlib_ng", "isal"), {"compression_level": 6}, ("zlib_ng", 6), ("zlib_ng", 6), "isal"),
    (("isal",), {"compression_level": 1}, ("zlib", 1), ("zlib", 1), "isal"),
    (("zlib_ng", "isal"), {"strategy": zlib.Z_RLE}, ("zlib_ng", 6), ("zlib_ng", 6), "isal"),
]


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize(("installed", "options", "small", "large", "inflating"), AUTO)
def test_auto_is_by_what_is_installed_and_by_the_level(
    installed: tuple[str, ...],
    options: dict[str, int],
    small: tuple[str, int],
    large: tuple[str, int],
    inflating: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = backends._find
    monkeypatch.setattr(backends, "_find", lambda name: find(name) if name in ("zlib", *installed) else None)
    level, strategy = options.get("compression_level"), options.get("strategy", zlib.Z_DEFAULT_STRATEGY)
    codecs = backends.choose_codecs("auto", level, 5, strategy)
    assert [(codec.backend.name, codec.level) for codec in (codecs.to_deflate(93), codecs.to_deflate(14_000))] == [
        small,
        large,
    ]
    by_size = [codecs.to_inflate(size).backend.name for size in (20, 2000)]
    if "zlib_ng" in installed and backends.library_of(codecs.to_deflate(93).backend) is not None:
        assert by_size == ["zlib_ng", "zlib_ng"]
    else:
        assert by_size == ["zlib", inflating]


@pytest.mark.parametrize("name", ["zlib", "zlib_ng", "isal"])
def test_a_backend_by_name_does_everything(name: str) -> None:
    codecs = deflate_options({"backend": name}).codecs
    all_of_them = {codecs.to_deflate(1), codecs.to_deflate(1 << 20), codecs.to_inflate(1), codecs.to_inflate(1 << 20)}
    assert [codec.backend.name for codec in all_of_them] == [name]
