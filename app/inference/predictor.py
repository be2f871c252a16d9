"""Files -> classifications: decode, prepare, batch, compute. No HTTP in here."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.inference import batcher
from app.inference.batcher import Batcher, QueueFullError
from app.inference.budgets import Budgets
from app.inference.decoder_process import Prepared, prepare
from app.inference.decoders import Decoders
from app.inference.engines import Engine, EngineError, SelfCheck, create_engine, prove
from app.settings import Settings
from model.checkpoint.card import Card
from model.checkpoint.folder import PARTS_FOLDER, Checkpoint, CheckpointError, read_checkpoint
from model.modalities import (
    Cost,
    FindParts,
    HasParts,
    InputError,
    InputTooCostlyError,
    Limits,
    find,
)

logger = logging.getLogger(__name__)

# A computation this long is stuck: the largest batch takes a second or two on one slow core.
STUCK_AFTER_S = 30.0
# Files that take less time than handing them to a decoder; one alone is decoded without.
TINY_AT_ONCE = 16

Made = TypeVar("Made")


class Timing(NamedTuple):
    """Where a sample's time went, in seconds."""

    decode: float
    preprocess: float
    queue: float
    infer: float

    @classmethod
    def slowest(cls, timings: Iterable["Timing"]) -> "Timing | None":
        """Each stage's longest time, None where there are no timings."""
        longest = [max(stage) for stage in zip(*timings, strict=True)]
        return cls(*longest) if longest else None


class Classification(NamedTuple):
    """What the model says of one sample."""

    label: str  # of the most probable class
    numbers: Mapping[str, int | None]  # that the label stands for, by name
    confidence: float  # its probability
    probabilities: tuple[float, ...]  # in the order of the card's labels; they sum to 1
    novelty: float  # how unlike all that the model knows, in [0, 1]
    recognized: bool  # novelty is at most 0.5, which it exceeds for 1 % of what it knows
    timing: Timing


class Observer(batcher.Observer, Protocol):
    """Is told, on the event loop, what a predictor and its batcher do."""

    def classified(self, classification: Classification) -> None:
        """A sample was classified."""
        ...


_Output = tuple[list[float], float]  # probabilities, novelty


def _groups(costs: Mapping[int, Cost]) -> list[list[int]]:
    """Which files go to a decoder together: tiny ones, several at a time."""
    tiny = [index for index, cost in costs.items() if cost.is_tiny]
    groups = [tiny[start : start + TINY_AT_ONCE] for start in range(0, len(tiny), TINY_AT_ONCE)]
    return groups + [[index] for index, cost in costs.items() if not cost.is_tiny]


class Predictor:
    """Owns the engine and the batcher before it. Nothing it does blocks the event loop.

    Attributes:
        decoders: of files: its own, until it gets those of its worker, which all models share.
    """

    def __init__(
        self,
        card: Card,
        engine: Engine,
        settings: Settings,
        find_parts: FindParts | None = None,
    ) -> None:
        self.card = card
        self.engine = engine
        self.modality = find(card.input.modality)
        self.find_parts = find_parts
        self._numbers = {
            label: {name: number.of(label) for name, number in self.modality.numbers.items()}
            for label in card.labels
        }
        self.limits = Limits(settings.max_pixels)
        self._prepare = partial(prepare, card.input.modality, card.input, self.limits)
        self._settings = settings
        self.decoders = Decoders(settings, Budgets(settings).pending_pixels)
        self._undecoded = 0
        self._observer: Observer | None = None
        self._batcher = Batcher(
            self._outputs,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            concurrency=engine.concurrency,
        )

    async def predict(self, content: bytes, deadline: float) -> Classification:
        """Classifies one file.

        Args:
            content: a whole file.
            deadline: on the event loop's clock.

        Raises:
            InputError: the bytes can't be read.
            BatcherError: too many wait, the deadline passed, or `close` was called.
            EngineError: the engine can't compute this sample.
        """
        classification, _ = await self.predict_and_show(content, deadline)
        return classification

    async def predict_and_show(
        self, content: bytes, deadline: float
    ) -> tuple[Classification, NDArray[Any]]:
        """Classifies one file as `predict` does; also gives what the model saw, (C, *shape)."""
        self._check_room(1)
        if self.modality.cost(content, self.limits).is_tiny:
            (item,) = self._prepare([content])
        else:
            (item,) = await self._prepared([content], deadline)
        if isinstance(item, InputError):
            raise item
        (outcome,) = await self._compute([item], deadline)
        if isinstance(outcome, EngineError):
            raise outcome
        return outcome, item.values

    async def predict_many(
        self, contents: Sequence[bytes], deadline: float
    ) -> list[Classification | InputError | EngineError]:
        """Classifies several files; one that fails has its error in its place.

        Raises:
            BatcherError: too many wait, the deadline passed, or `close` was called.
            BudgetError: too many pixels wait.
        """
        self._check_room(len(contents))
        prepared = await self._prepared(contents, deadline)
        good = [item for item in prepared if isinstance(item, Prepared)]
        outcomes = iter(await self._compute(good, deadline))
        return [item if isinstance(item, InputError) else next(outcomes) for item in prepared]

    async def predict_arrays(
        self, samples: Sequence[NDArray[Any]], deadline: float
    ) -> list[Classification | EngineError]:
        """Classifies samples that are in the input's form already; one that fails has its error.

        Args:
            samples: (C, *shape) each.
            deadline: on the event loop's clock.

        Raises:
            BatcherError: too many wait, the deadline passed, or `close` was called.
        """
        return await self._compute([Prepared(sample, 0.0, 0.0) for sample in samples], deadline)

    async def in_decoder(
        self, function: Callable[[bytes], Made], content: bytes, deadline: float, least: int = 1
    ) -> Made:
        """What a function makes of a file, in a decoder process.

        Args:
            function: that is pickled, and its result as well.
            content: the file.
            deadline: on the event loop's clock.
            least: work that the function takes, in pixels, if not more to decode the file.

        Raises:
            InputError: the bytes can't be read.
            BatcherError: too many wait, the deadline passed, or `close` was called.
            BudgetError: too many pixels wait.
        """
        self._check_room(1)
        cost = self.modality.cost(content, self.limits)
        work = Cost(max(cost.pixels, least))
        self._undecoded += 1
        try:
            (result,) = await self.decoders.run(function, [content], [work], deadline)
        finally:
            self._undecoded -= 1
        if isinstance(result, InputError):
            raise result
        return result

    def observe(self, observer: Observer) -> None:
        """Tells the observer what it does from now on."""
        self._observer = self._batcher.observer = observer

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Computes batches of empty samples, so that the first request finds all in place.

        Raises:
            EngineError: the engine can't compute them.
        """
        try:
            for size in batch_sizes:
                self._outputs([self._empty()] * size)
        except Exception as error:
            raise EngineError(f"the engine fails its warm-up: {error}") from error

    def is_full(self) -> bool:
        """Whether another sample would be refused."""
        return not self._batcher.has_room(self._undecoded + 1)

    def stuck(self) -> bool:
        """Whether the engine or a decoder has been at one thing for longer than any should take."""
        return self._batcher.busy_for() > STUCK_AFTER_S or self.decoders.stuck()

    async def can_answer(self, deadline: float) -> bool:
        """Whether the engine computes and files can be decoded; what failed last is tried again."""
        if self.stuck():
            return False
        if not self._batcher.healthy:
            await self._batcher.submit([self._empty()], deadline)
        return self._batcher.healthy and await self.decoders.can_decode(deadline)

    async def close(self) -> None:
        """Takes no more samples and returns when those taken have been answered."""
        await self._batcher.close()

    def _check_room(self, samples: int) -> None:
        """Refuses samples before the work of decoding them, which would be wasted."""
        self._batcher.check_open()
        self._batcher.check_room(self._undecoded + samples)
        # Batches leave room for those who send one.
        most = max(self._settings.max_files, self._settings.max_queue * 3 // 4)
        if samples > 1 and self._undecoded + samples > most:
            raise QueueFullError(f"{self._undecoded} images wait for a decoder, as many as may")

    async def _prepared(
        self, contents: Sequence[bytes], deadline: float
    ) -> list[Prepared | InputError]:
        """Each file in the input's form, or why it can't be."""
        prepared: dict[int, Prepared | InputError] = {}
        costs: dict[int, Cost] = {}
        room = self._settings.max_request_pixels
        for index, content in enumerate(contents):
            try:
                cost = self.modality.cost(content, self.limits)
            except InputError as error:
                prepared[index] = error
                continue
            if cost.pixels <= room:
                room -= cost.pixels
                costs[index] = cost
            else:
                prepared[index] = InputTooCostlyError(
                    "with this image the request has more than "
                    f"{self._settings.max_request_pixels:,} pixels to decode; send fewer"
                )
        groups = _groups(costs)
        self._undecoded += len(contents)
        try:
            results = await self.decoders.run(
                self._prepare,
                [[contents[index] for index in group] for group in groups],
                [Cost(sum(costs[index].pixels for index in group)) for group in groups],
                deadline,
            )
        finally:
            self._undecoded -= len(contents)
        for group, result in zip(groups, results, strict=True):
            alike = [result] * len(group) if isinstance(result, InputError) else result
            prepared |= zip(group, alike, strict=True)
        return [prepared[index] for index in range(len(contents))]

    async def _compute(
        self, prepared: Sequence[Prepared], deadline: float
    ) -> list[Classification | EngineError]:
        outcomes = await self._batcher.submit([item.values for item in prepared], deadline)
        results: list[Classification | EngineError] = []
        for item, outcome in zip(prepared, outcomes, strict=True):
            if isinstance(outcome.value, Exception):
                error = EngineError("the engine failed to compute this sample")
                logger.error("%s", error, exc_info=outcome.value)
                results.append(error)
                continue
            timing = Timing(item.decode_s, item.preprocess_s, outcome.queue_s, outcome.run_s)
            classification = self._classification(outcome.value, timing)
            if self._observer:
                self._observer.classified(classification)
            results.append(classification)
        return results

    def _outputs(self, samples: Sequence[NDArray[Any]]) -> list[_Output]:
        logits, novelty = self.engine.compute(np.stack(samples))
        if not math.isfinite(logits.sum() + novelty.sum()):
            raise EngineError("the engine computed numbers that are not finite")
        probabilities = self.card.calibration.probabilities(logits)
        return list(zip(probabilities.tolist(), novelty.tolist(), strict=True))

    def _classification(self, output: _Output, timing: Timing) -> Classification:
        probabilities, novelty = output
        confidence = max(probabilities)
        label = self.card.labels[probabilities.index(confidence)]
        return Classification(
            label=label,
            numbers=self._numbers[label],
            confidence=confidence,
            probabilities=tuple(probabilities),
            novelty=novelty,
            recognized=novelty <= 0.5,
            timing=timing,
        )

    def _empty(self) -> NDArray[Any]:
        return np.zeros(self.card.input.array_shape, self.card.input.dtype)


def load_predictor(settings: Settings, checkpoint: Checkpoint | None = None) -> Predictor:
    """Reads the checkpoint, loads the engine and warms it up.

    Args:
        settings: of the service.
        checkpoint: in the place of the one in the settings' folder.

    Raises:
        CheckpointError: the checkpoint is missing or broken.
        EngineError: the engine or device can't be had, or does not compute what it should.
    """
    checkpoint = checkpoint or read_checkpoint(settings.weights)
    try:
        engine = create_engine(checkpoint, settings.engine, settings.device, settings.threads)
        prove(engine, SelfCheck.of(checkpoint))
        predictor = Predictor(checkpoint.card, engine, settings, _part_finder(checkpoint))
        predictor.warm_up([1, settings.max_batch])
    except (CheckpointError, EngineError):
        raise
    except Exception as error:  # whatever a checkpoint that is none makes of its readers
        raise CheckpointError(f"{checkpoint.folder} can't be used: {error!r}") from error
    return predictor


def _part_finder(checkpoint: Checkpoint) -> FindParts | None:
    modality = find(checkpoint.card.input.modality)
    if not isinstance(modality, HasParts):
        return None
    try:
        return modality.find_parts(checkpoint.parts, checkpoint.card.input)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.folder / PARTS_FOLDER}: {error}") from None
