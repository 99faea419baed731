"""Each attack costs no more memory than its bound, and no more of it is handled before another client is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.__main__ import bound, title
from tests.hostile.attacks import ATTACKS, KIB, Attack
from tests.hostile.run import run

#: Bytes that may stay when the attack is over: what was needed for the first time.
_STAYS = 2048 * KIB
_PAGE = Path(__file__).parent.parent.parent / "docs" / "security.md"


@pytest.mark.gen_test(timeout=280)
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_an_attack_is_kept_within_its_bounds(attack: Attack) -> None:
    during, after = await run(attack, attack.memory)
    assert during.peak <= attack.most_memory * attack.connections
    assert during.most_callbacks <= attack.most_callbacks
    assert during.most_size <= attack.most_size
    if attack.end is None:
        assert during.ends == {}
    else:
        assert during.ends == {attack.end: attack.connections}
    assert after.held <= (_STAYS if attack.memory == "python" else 4 * _STAYS)


def test_the_table_in_the_docs_has_each_attack_with_its_bound() -> None:
    rows = [line.split(" | ")[:2] for line in _PAGE.read_text().splitlines()]
    assert [row for row in rows if row[0].startswith("| ") and row[-1].replace(",", "").isdigit()] == [
        [f"| {title(attack)}", bound(attack)] for attack in ATTACKS.values()
    ]
