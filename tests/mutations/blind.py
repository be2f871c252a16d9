"""Mutations that know no format: of bytes, and of a file's parts in their order."""

import random
from collections.abc import Sequence
from typing import Literal, TypeVar

Part = TypeVar("Part")


# Numbers at the edges of what fields hold.
EDGES = (
    *(0, 1, 2, 3, 7, 8, 16, 32, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536),
    *(2**24 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1),
)
_REPEATS = (1,) * 20 + (2, 3, 10, 10, 100, 100, 3000)
# Bytes from a part's start, where its fields most often are.
_HEAD = 120


def mutate_bytes(content: bytes, rng: random.Random, head: int = _HEAD) -> bytes:
    """Changes a few bytes, half of the times near the start.

    Args:
        content: to change.
        rng: that chooses.
        head: bytes that count as near the start.
    """
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        limit = len(changed) if rng.random() < 0.5 else min(len(changed), head)
        rng.choice(_BYTE_MUTATIONS)(changed, rng, rng.randrange(max(1, limit)))
    return bytes(changed)


def mutate_order(
    parts: list[Part], rng: random.Random, others: Sequence[Part] = (), most: int = 100
) -> None:
    """Repeats, drops, moves, exchanges or adds parts.

    Args:
        parts: changed in place.
        rng: that chooses.
        others: of other files, from which one may come.
        most: times that one is repeated.
    """
    if not parts:
        parts += others[:1]
        return
    at = rng.randrange(len(parts))
    other = rng.randrange(len(parts))
    action = rng.randrange(6 if others else 5)
    if action == 0:
        parts[at:at] = parts[at : at + 1] * min(most, rng.choice(_REPEATS))
    elif action == 1:
        del parts[at]
    elif action == 2:
        parts[at], parts[other] = parts[other], parts[at]
    elif action == 3:
        parts.insert(other, parts.pop(at))
    elif action == 4:
        del parts[at : at + rng.randrange(1, 4)]
    else:
        parts[at : at + rng.randrange(2)] = [rng.choice(others)]


def edge(rng: random.Random, size: int, order: Literal["big", "little"] | None = None) -> bytes:
    """A number at an edge, of so many bytes, in one byte order or either."""
    value = rng.choice(EDGES) % 256**size
    return value.to_bytes(size, order or rng.choice(("big", "little")))


def _flip(content: bytearray, rng: random.Random, at: int) -> None:
    if content:
        content[at] ^= 1 << rng.randrange(8)


def _noise(content: bytearray, rng: random.Random, at: int) -> None:
    content[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(1, 9))


def _edge(content: bytearray, rng: random.Random, at: int) -> None:
    size = rng.choice((1, 2, 4))
    content[at : at + size] = edge(rng, size)


def _cut(content: bytearray, rng: random.Random, at: int) -> None:
    del content[at:]


def _drop(content: bytearray, rng: random.Random, at: int) -> None:
    del content[at : at + rng.randrange(1, 40)]


def _repeat(content: bytearray, rng: random.Random, at: int) -> None:
    content[at:at] = content[at : at + rng.randrange(1, 200)] * rng.randrange(1, 20)


def _copy(content: bytearray, rng: random.Random, at: int) -> None:
    start = rng.randrange(max(1, len(content)))
    content[at : at + rng.randrange(200)] = content[start : start + rng.randrange(400)]


_BYTE_MUTATIONS = (_flip, _flip, _noise, _edge, _edge, _cut, _drop, _repeat, _copy)
