"""A queue in which requests take turns, however much each of them brings."""

import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_ENOUGH = 64  # entries of items that were discarded, before these are removed


class Turns(Generic[Item]):
    """Self-clocked fair queueing (Golestani, INFOCOM 1994), with each request as a flow.

    What a request brings is served in its order. The next item is the one whose request has had the
    least cost since it came, this item included. So nobody waits for all that another has brought,
    and a cheap item overtakes a dear one. Items are told apart by their hash.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []  # tags and numbers of items, gone ones too
        self._items: dict[int, Item] = {}  # those that wait, by number
        self._number_of: dict[Item, int] = {}
        self._numbers = itertools.count()
        self._now = 0.0  # the tag of the latest item that was taken

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Iterable[Item], cost: Callable[[Item], float] = lambda item: 1.0) -> None:
        """Adds what one request brings."""
        tag = self._now
        for item in items:
            tag += cost(item)
            number = next(self._numbers)
            heapq.heappush(self._heap, (tag, number))
            self._items[number] = item
            self._number_of[item] = number

    def discard(self, items: Iterable[Item]) -> None:
        """Forgets those of the items that wait."""
        for item in items:
            number = self._number_of.pop(item, None)
            if number is not None:
                del self._items[number]
        if len(self._heap) > 2 * len(self._items) + _ENOUGH:
            self._heap = [entry for entry in self._heap if entry[1] in self._items]
            heapq.heapify(self._heap)

    def take(self, fits: Callable[[Item], bool] = lambda item: True) -> Item | None:
        """The next item that fits, None where none does."""
        passed: list[tuple[float, int]] = []
        found: Item | None = None
        while self._items and found is None and self._heap:
            tag, number = heapq.heappop(self._heap)
            item = self._items.get(number)
            if item is None:
                continue
            if fits(item):
                found = item
                self._now = max(self._now, tag)
                del self._items[number], self._number_of[item]
            else:
                passed.append((tag, number))
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found
