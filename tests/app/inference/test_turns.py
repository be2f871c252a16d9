"""Turns: each request is served in its order, and none waits for all that another brings."""

import tracemalloc
import weakref

from hypothesis import given
from hypothesis import strategies as st

from app.inference.turns import Turns

Job = tuple[int, int, float]  # request, place in it, cost

REQUESTS = st.lists(
    st.lists(st.floats(0.1, 100, allow_nan=False), min_size=1, max_size=8), min_size=1, max_size=8
)


def queued(requests: list[list[float]]) -> Turns[Job]:
    turns = Turns[Job]()
    for number, costs in enumerate(requests):
        jobs = [(number, place, cost) for place, cost in enumerate(costs)]
        turns.put(jobs, lambda job: job[2])
    return turns


def served(turns: Turns[Job]) -> list[Job]:
    order = []
    while (job := turns.take()) is not None:
        order.append(job)
    return order


@given(REQUESTS)
def test_everything_is_served_once_and_a_request_in_its_order(requests: list[list[float]]):
    order = served(queued(requests))
    assert len(order) == sum(map(len, requests))
    for number, costs in enumerate(requests):
        assert [job[1] for job in order if job[0] == number] == list(range(len(costs)))


@given(REQUESTS, st.floats(0.1, 100, allow_nan=False))
def test_before_an_item_others_are_served_no_more_than_its_own_cost_each(
    requests: list[list[float]], cost: float
):
    turns = queued(requests)
    number = len(requests)
    turns.put([(number, 0, cost)], lambda job: job[2])
    order = served(turns)
    before = order[: order.index((number, 0, cost))]
    for other in range(number):
        assert sum(job[2] for job in before if job[0] == other) <= cost


def test_who_comes_later_gets_a_turn_before_a_batch_is_through():
    turns = queued([[1.0] * 64])
    first = [turns.take() for _ in range(10)]
    turns.put([(1, 0, 1.0)], lambda job: job[2])
    assert len(first) == 10
    assert (1, 0, 1.0) in [turns.take(), turns.take()]


@given(REQUESTS, st.data())
def test_what_is_discarded_is_not_served(requests: list[list[float]], data: st.DataObject):
    jobs = [
        (number, place, cost)
        for number, costs in enumerate(requests)
        for place, cost in enumerate(costs)
    ]
    gone = data.draw(st.sets(st.sampled_from(jobs)))
    turns = queued(requests)
    turns.discard(gone)
    assert len(turns) == len(jobs) - len(gone)
    assert set(served(turns)) == set(jobs) - gone


class Thing:
    """Something that may be kept alive."""


def test_discarded_items_are_not_kept():
    turns = Turns[Thing]()
    things = [Thing() for _ in range(10)]
    alive = weakref.WeakSet(things)
    turns.put(things)
    turns.discard(things)
    del things
    assert not alive
    # Nor what stands for them.
    tracemalloc.start()
    for _ in range(10_000):
        thing = Thing()
        turns.put([thing])
        turns.discard([thing])
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000


@given(REQUESTS, st.floats(0.1, 100, allow_nan=False))
def test_what_does_not_fit_waits(requests: list[list[float]], most: float):
    turns = queued(requests)
    fitting = []
    while (job := turns.take(lambda job: job[2] <= most)) is not None:
        fitting.append(job)
    rest = served(turns)
    assert all(job[2] <= most for job in fitting)
    assert all(job[2] > most for job in rest)
    assert len(fitting) + len(rest) == sum(map(len, requests))
