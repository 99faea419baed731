"""Runs the suite against the server and both clients, and judges what it reports.

``python -m tests.autobahn.run --cases all --reports DIR`` leaves the suite's HTML reports in DIR. The exit status is
0 only when every case asked for passed on every side; otherwise each one that did not is explained.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import zlib
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.autobahn.cases import TIMED_GROUPS, SelectionError, all_cases, group_of, select, time_allowed
from tests.autobahn.judge import SIDES, Outcome, counts, failures, judge, summary
from tests.autobahn.wstest import BuildError, Wstest, ensure_wstest, environment27, find_python27
from tests.ports import unused_port
from tests.programs import cores, untraced

CHECKOUT = Path(__file__).absolute().parents[2]
AGENT = "tornado_ws"
START_SECONDS = 60.0
END_SECONDS = 10.0

#: The style of the client driver that stands behind each client side.
STYLES = {"client": "read", "client-callback": "callback"}


class RunError(Exception):
    """A run of the suite that says nothing about the cases: something did not start, or ended early."""


@dataclass(frozen=True)
class Part:
    """The cases of one side that one process of the suite runs."""

    side: str
    name: str
    cases: tuple[str, ...]

    @property
    def timed(self) -> bool:
        return group_of(self.cases[0]) in TIMED_GROUPS


def parts_of(side: str, cases: Sequence[str]) -> list[Part]:
    """``cases`` in the order of their ids, the ones with short time limits apart from those that keep a core busy."""
    named: dict[str, list[str]] = {}
    for case in cases:
        group = group_of(case)
        named.setdefault("groups-1-7-10" if group in TIMED_GROUPS else f"group-{group}", []).append(case)
    return [Part(side, name, tuple(of_part)) for name, of_part in named.items()]


async def run_parts(wstest: Wstest, parts: Sequence[Part], reports: Path, jobs: int) -> list[Outcome]:
    """Run ``parts``, those with short time limits first and side by side, the others ``jobs`` at a time."""
    turn = asyncio.Semaphore(jobs)

    async def in_turn(part: Part) -> Outcome:
        async with turn:
            return await run_part(wstest, part, reports)

    outcomes = await asyncio.gather(*(run_part(wstest, part, reports) for part in parts if part.timed))
    heavy = sorted((part for part in parts if not part.timed), key=lambda part: -time_allowed(part.cases))
    outcomes += await asyncio.gather(*map(in_turn, heavy))
    in_the_order_of_sides = list(SIDES)
    return sorted(outcomes, key=lambda outcome: in_the_order_of_sides.index(outcome.side))


async def run_part(wstest: Wstest, part: Part, reports: Path) -> Outcome:
    """Run one part in a directory of its own under ``reports``, which is emptied: old reports are not judged."""
    directory = reports.absolute() / part.side / part.name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    allowed = time_allowed(part.cases)
    problems = []
    try:
        run = _test_server if part.side == "server" else _test_client
        await asyncio.wait_for(run(wstest, part, directory), allowed)
    except asyncio.TimeoutError:
        last = _last_line(directory / "wstest.log", "Running test case")
        said = f"{part.name} not done after {allowed:.0f} s; the suite's last word was: {last}"
        problems.append(f"{said}\n{_tail(directory / 'endpoint.log')}")
    except RunError as error:
        problems.append(f"{part.name}: {error}")
    traces = (directory / "endpoint.log").read_text(errors="replace").count("Traceback (most recent call last)")
    notes = [f"{traces} tracebacks in {directory / 'endpoint.log'}"] if traces else []
    return Outcome(part.side, judge(part.side, AGENT, part.cases, directory), problems, notes)


async def _test_server(wstest: Wstest, part: Part, directory: Path) -> None:
    server = [sys.executable, "-m", "tests.autobahn.echo_server"]
    async with _running(server, directory / "endpoint.log", CHECKOUT, _environment(part)) as endpoint:
        assert endpoint.stdout is not None
        try:
            announced = await asyncio.wait_for(endpoint.stdout.readline(), START_SECONDS)
        except asyncio.TimeoutError:
            raise RunError(f"the echo server tells no port after {START_SECONDS:.0f} s") from None
        if not announced.strip().isdigit():
            raise RunError(f"the echo server did not start\n{_tail(directory / 'endpoint.log')}")
        url = f"ws://127.0.0.1:{int(announced)}"
        spec = _write_spec(part, directory, {"servers": [{"agent": AGENT, "url": url}]})
        suite = wstest.command("-m", "fuzzingclient", "-s", str(spec))
        async with _running(suite, directory / "wstest.log", directory, environment27()) as fuzzer:
            if status := await fuzzer.wait():
                raise RunError(f"wstest ended with status {status}\n{_tail(directory / 'wstest.log')}")
        if endpoint.returncode is not None:
            raise RunError(f"the echo server ended by itself\n{_tail(directory / 'endpoint.log')}")


async def _test_client(wstest: Wstest, part: Part, directory: Path) -> None:
    (directory / "endpoint.log").touch()
    url = f"ws://127.0.0.1:{unused_port()}"
    spec = _write_spec(part, directory, {"url": url})
    suite = wstest.command("-m", "fuzzingserver", "-u", "0", "-s", str(spec))
    async with _running(suite, directory / "wstest.log", directory, environment27()) as fuzzer:
        await _listening(url, fuzzer, directory / "wstest.log")
        driver = [sys.executable, "-m", "tests.autobahn.client_driver", "--server", url, "--agent", AGENT]
        driver += ["--style", STYLES[part.side], "--index", str(directory / "index.json"), *part.cases]
        async with _running(driver, directory / "endpoint.log", CHECKOUT, _environment(part)) as endpoint:
            if status := await endpoint.wait():
                raise RunError(f"the client ended with status {status}\n{_tail(directory / 'endpoint.log')}")


def _environment(part: Part) -> dict[str, str]:
    return dict(os.environ) if part.timed else untraced()


def _write_spec(part: Part, directory: Path, peer: Mapping[str, object]) -> Path:
    spec = {**peer, "outdir": str(directory), "cases": part.cases, "exclude-cases": [], "exclude-agent-cases": {}}
    path = directory / "spec.json"
    path.write_text(json.dumps(spec))
    return path


async def _listening(url: str, fuzzer: Process, log: Path) -> None:
    port = int(url.rpartition(":")[2])
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS
    while fuzzer.returncode is None and loop.time() < deadline:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(0.1)
    raise RunError(f"wstest does not listen on {url}\n{_tail(log)}")


@contextlib.asynccontextmanager
async def _running(
    command: Sequence[str], log: Path, directory: Path, environment: Mapping[str, str]
) -> AsyncIterator[Process]:
    """A process in a group of its own, all of which has ended when the block is left."""
    announces = "tests.autobahn.echo_server" in command
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            env=environment,
            stdin=PIPE if announces else DEVNULL,
            stdout=PIPE if announces else output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    try:
        _signal_group(process, signal.SIGTERM)
        await asyncio.wait_for(process.wait(), END_SECONDS)
    except asyncio.TimeoutError:
        pass
    finally:
        _signal_group(process, signal.SIGKILL)
        await process.wait()


def _signal_group(process: Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _tail(log: Path) -> str:
    return "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-15:])


def _last_line(log: Path, beginning: str) -> str:
    said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(beginning)]
    return said[-1] if said else "nothing"


def versions() -> dict[str, str]:
    """What took part in the run, by the names that its makers use."""
    import tornado

    import tornado_ws

    return {
        platform.python_implementation(): platform.python_version(),
        "tornado": tornado.version,
        "tornado_ws": getattr(tornado_ws, "__version__", "unknown"),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }


async def _until_terminated(wstest: Wstest, parts: Sequence[Part], reports: Path, jobs: int) -> list[Outcome]:
    task = asyncio.ensure_future(run_parts(wstest, parts, reports, jobs))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn.run", description=__doc__)
    parser.add_argument("--cases", default="ci", help="fast, ci, all, or ids and groups: 6.4,7.9.3 (default: ci)")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"some of {','.join(SIDES)} (default: all)")
    parser.add_argument("--reports", type=Path, help="where the suite's reports go (default: kept on failure only)")
    parser.add_argument("--summary", type=Path, help="a Markdown page to write; for --cases all")
    parser.add_argument("--jobs", type=int, default=cores(), help="runs of the heavy groups at a time")
    chosen = parser.parse_args()
    sides = chosen.sides.split(",")
    if unknown := set(sides).difference(SIDES):
        parser.error(f"unknown side {', '.join(sorted(unknown))}")
    if chosen.summary and (chosen.cases != "all" or set(sides) != set(SIDES)):
        parser.error("--summary is about all cases on all sides")
    if (python27 := find_python27()) is None:
        print("no CPython 2.7 with pip on this machine: the suite needs one", file=sys.stderr)
        return 2
    try:
        wstest = ensure_wstest(python27)
        cases = select(chosen.cases, all_cases(wstest))
    except (BuildError, SelectionError) as error:
        print(error, file=sys.stderr)
        return 2
    reports = chosen.reports or Path(tempfile.mkdtemp(prefix="tornado-ws-autobahn-"))
    parts = [part for side in sides for part in parts_of(side, cases)]
    try:
        outcomes = asyncio.run(_until_terminated(wstest, parts, reports, max(1, chosen.jobs)))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if chosen.summary:
        chosen.summary.parent.mkdir(parents=True, exist_ok=True)
        chosen.summary.write_text(summary(outcomes, versions()))
    return _tell(outcomes, reports, keep=chosen.reports is not None)


def _tell(outcomes: Sequence[Outcome], reports: Path, keep: bool) -> int:
    if said := failures(outcomes):
        print(f"{said}\n")
    for outcome in outcomes:
        for note in outcome.notes:
            print(f"note: {outcome.side}: {note}")
    for side, standing in counts(outcomes).items():
        print(f"{side}: {', '.join(f'{count} {name}' for name, count in sorted(standing.items()))}")
    passed = bool(outcomes) and all(outcome.passed for outcome in outcomes)
    if passed and not keep:
        shutil.rmtree(reports)
    else:
        print(f"reports: {reports}/*/*/index.html")
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
