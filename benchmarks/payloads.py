"""The messages of the rows, the same in every run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

#: JSON in the form that json.dumps and Tornado's write_message(dict) give it; JavaScript writes it without spaces.
COMPACT = (",", ":")

_NAMES = (
    "Ada Alan Barbara Dennis Donald Edsger Frances Grace Guido John Ken Leslie Linus Margaret Radia Tony".split()  # noqa: SIM905
)
_CITIES = ("Cairo", "Kyoto", "Lagos", "Leeds", "Lima", "Oslo", "Perth", "Porto", "Quito", "Turin")
_TAGS = ("beta", "billing", "churned", "new", "partner", "support", "trial", "vip")
_LETTERS = "abcdefghijklmnopqrstuvwxyz "


def text(size: int, count: int) -> list[str]:
    """Lower-case text that does not repeat itself."""
    numbers = random.Random(size)
    letters = _LETTERS * (size // len(_LETTERS) + 1)
    return ["".join(numbers.sample(letters, size)) for _ in range(count)]


def binary(size: int, count: int) -> list[bytes]:
    """Random bytes."""
    numbers = random.Random(size)
    return [numbers.randbytes(size) for _ in range(count)]


def small_json(count: int) -> list[str]:
    """Trades as an exchange publishes them, 93 bytes each."""
    numbers = random.Random(93)
    price, time = 6_421_357, 1_761_955_200_000
    messages = []
    for number in range(count):
        price += round(numbers.gauss(0, 400))
        time += numbers.randrange(1, 20_000)
        # A last digit of 0 would be left away, and the message a byte shorter.
        cents = price if price % 10 else price + 1
        trade = {"type": "trade", "id": 7_041_100 + 7 * number, "pair": "BTC-USD", "price": cents / 100, "time": time}
        messages.append(json.dumps(trade))
    return messages


def large_json(count: int) -> list[str]:
    """Pages of customers as an API lists them, 14 KiB each."""
    numbers = random.Random(14)
    messages = []
    for page in range(count):
        customers: list[dict[str, object]] = []
        encoded = ""
        while len(encoded) < 14 * 1024:
            name = numbers.choice(_NAMES)
            clock = f"{numbers.randrange(24):02d}:{numbers.randrange(60):02d}:{numbers.randrange(60):02d}Z"
            customers.append(
                {
                    "id": 100_000 + page * 1000 + numbers.randrange(1000),
                    "name": name,
                    "email": f"{name.lower()}{numbers.randrange(10_000)}@example.com",
                    "address": {"city": numbers.choice(_CITIES), "country": None},
                    "active": numbers.random() < 0.8,
                    "balance": round(numbers.uniform(0, 5000), 2),
                    "tags": numbers.sample(_TAGS, 2),
                    "updated": f"2025-11-{numbers.randrange(1, 29):02d}T{clock}",
                }
            )
            encoded = json.dumps({"page": page, "pages": count, "customers": customers})
        messages.append(encoded)
    return messages


#: By the name that a row calls them, each a function of the number of messages.
PAYLOADS: dict[str, Callable[[int], list[str] | list[bytes]]] = {
    "text 32 B": lambda count: text(32, count),
    "text 256 B": lambda count: text(256, count),
    "text 1 KiB": lambda count: text(1024, count),
    "binary 16 KiB": lambda count: binary(16 * 1024, count),
    "binary 1 MiB": lambda count: binary(1024 * 1024, count),
    "JSON 93 B": small_json,
    "JSON 14 KiB": large_json,
}
