"""Each attack costs no more memory than its bound, and no more of it is handled before another client is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile import from_clients, from_servers
from tests.hostile.__main__ import bound, title
from tests.hostile.attacks import KIB, Attack
from tests.hostile.run import Result, run_against_client, run_against_server

#: Bytes that may stay when the attack is over: what was needed for the first time.
_STAYS = 2048 * KIB
_PAGE = Path(__file__).parent.parent.parent / "docs" / "security.md"


def _check(attack: Attack, result: Result) -> None:
    during, after = result
    assert during.peak <= attack.most_memory * attack.connections
    assert during.most_callbacks <= attack.most_callbacks
    assert during.most_size <= attack.most_size
    assert attack.most_callbacks_in_all is None or during.callbacks <= attack.most_callbacks_in_all
    assert attack.most_size_in_all is None or during.size <= attack.most_size_in_all
    if attack.end is None:
        assert during.ends == {}
    else:
        assert during.ends == {attack.end: attack.connections}
    assert after.held <= (_STAYS if attack.memory == "python" else 4 * _STAYS)


@pytest.mark.gen_test(timeout=280)
@pytest.mark.parametrize("attack", from_clients.ATTACKS.values(), ids=from_clients.ATTACKS)
async def test_an_attack_on_a_server_is_kept_within_its_bounds(attack: Attack) -> None:
    _check(attack, await run_against_server(attack, attack.memory))


@pytest.mark.gen_test(timeout=280)
@pytest.mark.parametrize("attack", from_servers.ATTACKS.values(), ids=from_servers.ATTACKS)
async def test_an_attack_on_a_client_is_kept_within_its_bounds(attack: Attack) -> None:
    _check(attack, await run_against_client(attack, attack.memory))


def test_the_tables_in_the_docs_have_each_attack_with_its_bound() -> None:
    rows = [line.split(" | ")[:2] for line in _PAGE.read_text().splitlines()]
    attacks = [*from_clients.ATTACKS.values(), *from_servers.ATTACKS.values()]
    assert [row for row in rows if row[0].startswith("| ") and row[-1].replace(",", "").isdigit()] == [
        [f"| {title(attack)}", bound(attack)] for attack in attacks
    ]
