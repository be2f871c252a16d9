"""A queue in which requests take turns, however much each of them brings."""

import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Self-clocked fair queueing (Golestani, INFOCOM 1994), with each request as a flow.

    What a request brings is served in its order. Of two requests that wait, that one comes first
    whose items up to the next one cost less, counted from the time at which it came. So nobody
    waits for all that another has brought, and a cheap item overtakes a dear one.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._numbers = itertools.count()
        self._now = 0.0  # the tag of the latest item that was taken

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, items: Iterable[Item], cost: Callable[[Item], float]) -> None:
        """Adds what one request brings."""
        tag = self._now
        for item in items:
            tag += cost(item)
            heapq.heappush(self._heap, (tag, next(self._numbers), item))

    def take(self) -> Item:
        """The next item; there must be one."""
        self._now, _, item = heapq.heappop(self._heap)
        return item

    def take_first(self, fits: Callable[[Item], bool]) -> Item | None:
        """The next item that fits, None where none does."""
        passed: list[tuple[float, int, Item]] = []
        found: Item | None = None
        while self._heap and found is None:
            entry = heapq.heappop(self._heap)
            if fits(entry[2]):
                self._now, _, found = entry
            else:
                passed.append(entry)
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found
