"""What a service counts.

Workers share what they count, through files that each maps into its memory: a scrape answered by
one worker tells the figures of all. To count with prometheus-client would cost ten times as much
per request, and its mode for several processes has no process figures.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from app.telemetry.tally import Key, Snapshot, Tally

if TYPE_CHECKING:
    from app.inference.budgets import Budget
    from app.inference.predictor import Classification

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, *_SECONDS[:-3])
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_STAGES = ("decode", "preprocess", "queue", "infer")  # as a Timing has them
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True)
class Figure:
    """A metric: its name without the suffixes that Prometheus adds, its help, labels, buckets.

    A gauge is of one worker, and has its number as one more label, `worker`.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # upper bounds, besides infinity

    @property
    def width(self) -> int:
        """Numbers that it takes per combination of labels: a histogram's sum, then its buckets."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


REQUESTS = Figure(
    "perceiver_http_request_duration_seconds",
    "histogram",
    "From a request's head to the end of its answer.",
    ("route", "method", "status"),
    _SECONDS,
)
REJECTED = Figure(
    "perceiver_http_requests_rejected",
    "counter",
    "Requests answered with an error, by the last part of its problem type.",
    ("reason",),
)
STAGES = Figure(
    "perceiver_stage_duration_seconds",
    "histogram",
    "Time of one image in decode, preprocess, queue or infer.",
    ("stage",),
    _STAGE_SECONDS,
)
BATCHES = Figure(
    "perceiver_batch_size", "histogram", "Images that the engine computed at once.", (), _SIZES
)
QUEUED = Figure("perceiver_queue_depth", "gauge", "Images that wait for the engine.")
PREDICTIONS = Figure("perceiver_predictions", "counter", "Answers, by label.", ("label",))
CONFIDENCE = Figure(
    "perceiver_prediction_confidence", "histogram", "Probability of the answer.", (), _SHARES
)
NOVELTY = Figure(
    "perceiver_prediction_novelty",
    "histogram",
    "How unlike what the model knows an image is; above 0.5 it is not recognized.",
    (),
    _SHARES,
)
MODEL = Figure(
    "perceiver_model_info",
    "gauge",
    "The model that a worker answers with: 1.",
    ("name", "version", "engine", "device"),
)
TAKEN = Figure(
    "perceiver_budget_taken",
    "gauge",
    "Bytes or pixels that the requests under way hold now.",
    ("budget",),
)
LIMIT = Figure(
    "perceiver_budget_limit", "gauge", "Bytes or pixels that they may hold.", ("budget",)
)
DECODER_ENDS = Figure(
    "perceiver_decoder_ends",
    "counter",
    "Decoder processes that ended: of too much CPU time (cpu) or time (timeout), else crash.",
    ("reason",),
)
FIGURES = {each.name: each for each in globals().copy().values() if isinstance(each, Figure)}


class Metrics:
    """Counts what happens in this worker.

    Counting is for the event loop's thread, `snapshots` for any.

    Args:
        folder: where the workers of this service share their figures; None: there is but one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._tally = Tally(folder)
        self._values = self._tally.values
        for figure in (
            QUEUED,
            MODEL,
            TAKEN,
        ):  # of the worker that died, if this one takes its place
            self._tally.reset(figure.name)
        self._places: dict[Key, int] = {}
        self._queued = self._place(QUEUED)
        self._batches = self._place(BATCHES)
        self._confidence = self._place(CONFIDENCE)
        self._novelty = self._place(NOVELTY)
        self._stages = [self._place(STAGES, stage) for stage in _STAGES]

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts an answered request; `route` is a path template, not the path asked for."""
        if method not in _METHODS:
            method = "other"
        self._observe(self._place(REQUESTS, route, method, str(status)), _SECONDS, seconds)

    def rejected(self, reason: str) -> None:
        """Counts a request that was answered with an error."""
        self._values[self._place(REJECTED, reason)] += 1

    def classified(self, classification: "Classification") -> None:
        """Counts a sample that was classified."""
        for place, seconds in zip(self._stages, classification.timing, strict=True):
            if seconds:  # an image that came as an array was not decoded
                self._observe(place, _STAGE_SECONDS, seconds)
        self._values[self._place(PREDICTIONS, classification.label)] += 1
        self._observe(self._confidence, _SHARES, classification.confidence)
        self._observe(self._novelty, _SHARES, classification.novelty)

    def batch(self, size: int) -> None:
        """Counts a batch that the engine computed."""
        self._observe(self._batches, _SIZES, size)

    def queued(self, images: int) -> None:
        """Tells how many images wait for the engine."""
        self._values[self._queued] = images

    def model(self, name: str, version: str, engine: str, device: str) -> None:
        """Tells which model answers from now on."""
        self._tally.reset(MODEL.name)
        self._values[self._place(MODEL, name, version, engine, device)] = 1

    def follow(self, budgets: "Mapping[str, Budget]") -> None:
        """Tells from now on how much of each budget is taken."""
        for name, budget in budgets.items():
            self._values[self._place(LIMIT, name)] = budget.limit
            budget.on_change = partial(self._values.__setitem__, self._place(TAKEN, name))

    def decoder_ended(self, reason: str) -> None:
        """Counts a decoder process that a file ended."""
        self._values[self._place(DECODER_ENDS, reason)] += 1

    def expect(self, labels: Iterable[str], reasons: Iterable[str]) -> None:
        """Makes counters of answers and of errors start from 0, not from their first event."""
        for label in labels:
            self._place(PREDICTIONS, label)
        for reason in reasons:
            self._place(REJECTED, reason)
        for reason in ("cpu", "timeout", "crash"):
            self._place(DECODER_ENDS, reason)

    def close(self) -> None:
        """Counts no more; what it counted stays for the other workers to tell."""
        self._tally.close()

    def snapshots(self) -> list[Snapshot]:
        """What each worker has counted, in the order of their numbers."""
        return self._tally.snapshots()

    def _place(self, figure: Figure, *labels: str) -> int:
        key = (figure.name, labels)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._tally.place(key, figure.width)
        return place

    def _observe(self, place: int, buckets: tuple[float, ...], value: float) -> None:
        values = self._values
        values[place] += value
        values[place + 1 + bisect_left(buckets, value)] += 1
