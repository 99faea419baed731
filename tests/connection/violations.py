"""The violations of `tornado_ws.testing`, as cases of tests."""

from __future__ import annotations

import pytest

from tornado_ws.testing.violations import MASKED as MASKED
from tornado_ws.testing.violations import MAX_MESSAGE_SIZE as MAX_MESSAGE_SIZE
from tornado_ws.testing.violations import UNMASKED as UNMASKED
from tornado_ws.testing.violations import VIOLATIONS as VIOLATIONS
from tornado_ws.testing.violations import Violation as Violation


def each(*violations: Violation) -> pytest.MarkDecorator:
    """Return the mark of a test that is run for each of ``violations``, and cited for what each breaks."""
    cases = [
        pytest.param(violation, id=violation.name, marks=pytest.mark.rfc(violation.rule)) for violation in violations
    ]
    return pytest.mark.parametrize("violation", cases)
