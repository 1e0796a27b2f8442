"""Names for containers that were given none: two words and four digits of the id.

The words are like docker's, easy to type and to tell apart; the digits keep two containers that
drew the same words apart, for a name is taken only once.
"""

from __future__ import annotations

_HOW = (
    "able", "brave", "bright", "busy", "calm", "candid", "careful", "clever", "cosy", "curious",
    "dapper", "daring", "eager", "fair", "fleet", "fond", "gentle", "glad", "handy", "honest",
    "jolly", "keen", "kind", "light", "lively", "lucid", "merry", "modest", "neat", "nimble",
    "patient", "quick",
)  # fmt: skip
_WHO = (
    "babbage", "bartik", "boole", "cerf", "clarke", "conway", "curie", "dijkstra", "euler",
    "feinler", "gauss", "germain", "goldberg", "hamilton", "hopper", "johnson", "karp", "knuth",
    "lamport", "liskov", "lovelace", "mccarthy", "meitner", "noether", "perlman", "ritchie",
    "shannon", "snyder", "thompson", "turing", "wilkes", "zuse",
)  # fmt: skip


def name_for(container_id: str) -> str:
    """A name that follows from the id: "keen_hopper_3f9a"."""
    number = int(container_id[-4:], 16)
    return f"{_HOW[number % 32]}_{_WHO[number // 32 % 32]}_{container_id[:4]}"
