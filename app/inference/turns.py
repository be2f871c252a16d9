"""A queue in which requests take turns, however much each of them brings."""

import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_ENOUGH = 64  # entries of items that were discarded, before these are removed


class Turns(Generic[Item]):
    """Self-clocked fair queueing (Golestani, INFOCOM 1994), with each request as a flow.

    What a request brings is served in its order. Of two requests that wait, that one comes first
    whose items up to the next one cost less, counted from the time at which it came. So nobody
    waits for all that another has brought, and a cheap item overtakes a dear one. Items are told
    apart by their hash.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._waiting: set[Item] = set()
        self._numbers = itertools.count()
        self._now = 0.0  # the tag of the latest item that was taken

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, items: Iterable[Item], cost: Callable[[Item], float] = lambda item: 1.0) -> None:
        """Adds what one request brings."""
        tag = self._now
        for item in items:
            tag += cost(item)
            heapq.heappush(self._heap, (tag, next(self._numbers), item))
            self._waiting.add(item)

    def discard(self, items: Iterable[Item]) -> None:
        """Forgets those of the items that wait."""
        self._waiting.difference_update(items)
        if len(self._heap) > 2 * len(self._waiting) + _ENOUGH:
            self._heap = [entry for entry in self._heap if entry[2] in self._waiting]
            heapq.heapify(self._heap)

    def take(self, fits: Callable[[Item], bool] = lambda item: True) -> Item | None:
        """The next item that fits, None where none does."""
        passed: list[tuple[float, int, Item]] = []
        found: Item | None = None
        while self._waiting and found is None and self._heap:
            entry = heapq.heappop(self._heap)
            if entry[2] not in self._waiting:
                continue
            if fits(entry[2]):
                self._now, _, found = entry
                self._waiting.remove(found)
            else:
                passed.append(entry)
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found
