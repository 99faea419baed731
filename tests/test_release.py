"""What is released, as `python -m release` makes it, and what pip makes of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from release.build import build_sdist, build_wheel, call, sources, unpack
from release.check import sdist_faults, wheel_faults
from tests.compat.test_installed import Environment
from tests.needs import need_compiler
from tests.programs import ROOT

pytestmark = [
    pytest.mark.xdist_group("release"),
    # A compiler is at work.
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source distribution is made of a checkout"),
]

#: How a wheel is made of an unpacked source distribution, with setuptools and Cython of ours.
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
_FROM_SOURCE = ("--no-index", "--no-deps", "--no-build-isolation")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sdist(tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(sdist, tmp_path_factory.mktemp("unpacked"))


@pytest.fixture
def whole(unpacked: Path, tmp_path: Path) -> Callable[[Path, str], str]:
    """A function that installs a wheel, and returns what `tests.installed` says of it."""

    def run(wheel: Path, engine: str) -> str:
        folder = tmp_path / f"for {engine}"
        environment = Environment(folder / "venv")
        environment.install(wheel)
        (folder / "tests").symlink_to(unpacked / "tests")
        return call(environment.python, "-m", "tests.installed", engine, cwd=folder)

    return run


def test_a_source_distribution_has_what_the_checkout_has(sdist: Path) -> None:
    assert sdist_faults(sdist, sources()) == []
    assert sdist_faults(sdist, ["docs/of-another.md"]) == [f"{sdist.name} lacks docs/of-another.md"]


def test_a_wheel_of_the_pure_engine_is_for_every_platform(
    unpacked: Path, tmp_path: Path, whole: Callable[[Path, str], str]
) -> None:
    wheel = build_wheel(unpacked, tmp_path, pure=True)
    assert wheel_faults(wheel, pure=True) == []
    assert wheel_faults(wheel, pure=False) != []
    assert "is whole, python engine" in whole(wheel, "python")
    with pytest.raises(SystemExit, match="this installation was made without the native one"):
        whole(wheel, "native")


def test_links_of_the_page_at_an_index_lead_to_the_repository(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    with zipfile.ZipFile(build_wheel(unpacked, tmp_path, pure=True)) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        page = archive.read(name).decode().partition("\n\n")[2]
    assert page.startswith("# tornado_ws\n")
    assert "<!--" not in page
    images, links = (re.findall(rf"{mark}\[[^]]*\]\(([^)#]*)", page) for mark in ("!", "(?<!!)"))
    for kind, addresses in (("raw", images), ("blob", links)):
        begin = f"https://github.com/owner/name/{kind}/main/"
        assert addresses
        assert [each for each in addresses if not each.startswith(begin)] == []
        assert [each for each in addresses if not (ROOT / each.removeprefix(begin)).exists()] == []


def test_a_wheel_of_the_native_engine_is_whole(
    unpacked: Path, tmp_path: Path, whole: Callable[[Path, str], str]
) -> None:
    need_compiler()
    wheel = build_wheel(unpacked, tmp_path, pure=False)
    assert wheel_faults(wheel, pure=False) == []
    assert "is whole, native engine" in whole(wheel, "native")


def build(sdist: Path, cache: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Have pip make a wheel of ``sdist``, with a cache of its own."""
    command = [*_PIP, "wheel", *_FROM_SOURCE, "--wheel-dir", str(cache / "wheels"), str(sdist)]
    environment = {**os.environ, "PIP_CACHE_DIR": str(cache), "PIP_CONFIG_FILE": os.devnull, **changes}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def cached(cache: Path) -> list[str]:
    return [path.name for path in (cache / "wheels").rglob("*.whl") if path.parent != cache / "wheels"]


def test_without_a_compiler_pip_shows_why_and_keeps_nothing(sdist: Path, tmp_path: Path) -> None:
    done = build(sdist, tmp_path, CC="/no/such/compiler")
    assert done.returncode != 0
    assert "tornado_ws: the native engine could not be built" in done.stderr
    assert "TORNADO_WS_PURE=1" in done.stderr
    assert cached(tmp_path) == []


def test_one_that_was_asked_for_without_a_compiler_tells_by_its_tag(sdist: Path, tmp_path: Path) -> None:
    done = build(sdist, tmp_path, CC="/no/such/compiler", TORNADO_WS_PURE="1")
    assert done.returncode == 0, done.stderr
    (name,) = cached(tmp_path)
    assert name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(next((tmp_path / "wheels").glob("*.whl"))) as archive:
        assert not [each for each in archive.namelist() if each.endswith(".so")]


def test_a_value_of_no_meaning_is_told(sdist: Path, tmp_path: Path) -> None:
    done = build(sdist, tmp_path, TORNADO_WS_PURE="yes")
    assert done.returncode != 0
    assert "TORNADO_WS_PURE='yes' in the environment has no meaning; 1 has" in done.stdout + done.stderr
