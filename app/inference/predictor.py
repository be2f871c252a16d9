"""Image bytes -> predictions: decode, preprocess, batch, compute. No HTTP in here."""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.inference import batcher
from app.inference.batcher import Batcher, DeadlineExceededError
from app.inference.engines import Engine, EngineError, create_engine, prove
from app.settings import Settings
from model.checkpoint.card import Card
from model.checkpoint.folder import Checkpoint, read_checkpoint
from model.modalities.digits.form import prepare
from model.modalities.pillow import ImageError, decode, is_tiny

logger = logging.getLogger(__name__)

# A computation this long is stuck: the largest batch takes a second or two on one slow core.
STUCK_AFTER_S = 30.0


Given = TypeVar("Given")
Made = TypeVar("Made")


class Timing(NamedTuple):
    """Where an image's time went, in seconds."""

    decode: float
    preprocess: float
    queue: float
    infer: float

    @classmethod
    def slowest(cls, timings: Iterable["Timing"]) -> "Timing | None":
        """Each stage's longest time, None where there are no timings."""
        stages = zip(*timings, strict=True)
        longest = [max(stage) for stage in stages]
        return cls(*longest) if longest else None


class Prediction(NamedTuple):
    """What the model reads in one image."""

    label: str  # of the most probable class
    confidence: float  # its probability
    probabilities: tuple[float, ...]  # in the order of the card's labels; they sum to 1
    novelty: float  # how unlike all that the model knows, in [0, 1]
    recognized: bool  # novelty is at most 0.5, which it exceeds for 1 % of the digits it knows
    timing: Timing

    @property
    def digit(self) -> int | None:
        """The label as a number, if it is a digit."""
        return int(self.label) if len(self.label) == 1 and self.label in "0123456789" else None


class Observer(batcher.Observer, Protocol):
    """Is told, on the event loop, what a predictor and its batcher do."""

    def prediction(self, prediction: Prediction) -> None:
        """An image was read."""
        ...


_Output = tuple[list[float], float]  # probabilities, novelty


class _Prepared(NamedTuple):
    pixels: NDArray[np.uint8]  # (C, H, W)
    decode_s: float
    preprocess_s: float


class Predictor:
    """Owns the engine, the batcher before it and the threads that decode images.

    Nothing it does blocks the event loop.
    """

    def __init__(self, card: Card, engine: Engine, settings: Settings) -> None:
        self.card = card
        self.engine = engine
        self._max_pixels = settings.max_pixels
        self._undecoded = 0
        self._observer: Observer | None = None
        self._decoders = ThreadPoolExecutor(settings.threads, thread_name_prefix="decoder")
        self._batcher = Batcher(
            self._outputs,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            concurrency=engine.concurrency,
        )

    async def predict(self, image: bytes, deadline: float) -> Prediction:
        """Reads one image.

        Args:
            image: a whole image file.
            deadline: on the event loop's clock.

        Raises:
            ImageError: the bytes can't be read as an image.
            BatcherError: too many wait, the deadline passed, or `close` was called.
            EngineError: the engine can't compute this image.
        """
        prediction, _ = await self.predict_and_show(image, deadline)
        return prediction

    async def predict_and_show(
        self, image: bytes, deadline: float
    ) -> tuple[Prediction, NDArray[np.uint8]]:
        """Reads one image as `predict` does; also gives what the model saw, (C, H, W)."""
        if is_tiny(image):  # decoding takes less time than handing it to another thread
            self._check_room(1)
            item = self._prepare(image)
        else:
            item = await self.in_decoder(self._prepare, image, deadline)
        if isinstance(item, ImageError):
            raise item
        (outcome,) = await self._compute([item], deadline)
        if isinstance(outcome, EngineError):
            raise outcome
        return outcome, item.pixels

    async def predict_many(
        self, images: Sequence[bytes], deadline: float
    ) -> list[Prediction | ImageError | EngineError]:
        """Reads several images; one that fails has its error in its place.

        Raises:
            BatcherError: too many wait, the deadline passed, or `close` was called.
        """
        prepared = await self._in_decoders(self._prepare, images, deadline)
        good = [item for item in prepared if isinstance(item, _Prepared)]
        outcomes = iter(await self._compute(good, deadline))
        return [item if isinstance(item, ImageError) else next(outcomes) for item in prepared]

    async def predict_arrays(
        self, images: Sequence[NDArray[np.uint8]], deadline: float
    ) -> list[Prediction | EngineError]:
        """Reads images that are in the model's form already; one that fails has its error.

        Args:
            images: (C, H, W) each, light strokes on black.
            deadline: on the event loop's clock.

        Raises:
            BatcherError: too many wait, the deadline passed, or `close` was called.
        """
        return await self._compute([_Prepared(image, 0.0, 0.0) for image in images], deadline)

    async def in_decoder(
        self, function: Callable[[Given], Made], given: Given, deadline: float
    ) -> Made:
        """The function's result, made by one of the threads that decode images.

        Raises:
            BatcherError: too many wait, the deadline passed, or `close` was called.
        """
        (result,) = await self._in_decoders(function, [given], deadline)
        return result

    def observe(self, observer: Observer) -> None:
        """Tells the observer what it does from now on."""
        self._observer = observer
        self._batcher.observer = observer

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Computes batches of empty images, so that the first request finds all in place.

        Raises:
            EngineError: the engine can't compute them.
        """
        try:
            for size in batch_sizes:
                self._outputs([self._empty_image()] * size)
        except Exception as error:
            raise EngineError(f"the engine fails its warm-up: {error}") from error

    def is_full(self) -> bool:
        """Whether another image would be refused."""
        return not self._batcher.has_room(self._undecoded + 1)

    def stuck(self) -> bool:
        """Whether the engine has been at one computation for longer than any should take."""
        return self._batcher.busy_for() > STUCK_AFTER_S

    async def can_answer(self, deadline: float) -> bool:
        """Whether the engine computes; one that failed last is asked again."""
        if self.stuck():
            return False
        if not self._batcher.healthy:
            await self._batcher.submit([self._empty_image()], deadline)
        return self._batcher.healthy

    async def close(self) -> None:
        """Takes no more images and returns when those taken have been answered."""
        await self._batcher.close()
        self._decoders.shutdown(wait=False)

    def _check_room(self, images: int) -> None:
        """Refuses images before the work of decoding them, which would be wasted."""
        self._batcher.check_open()
        self._batcher.check_room(self._undecoded + images)

    async def _in_decoders(
        self, function: Callable[[Given], Made], given: Sequence[Given], deadline: float
    ) -> list[Made]:
        self._check_room(len(given))
        loop = asyncio.get_running_loop()
        self._undecoded += len(given)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.gather(
                    *(loop.run_in_executor(self._decoders, function, item) for item in given)
                )
        except TimeoutError:
            raise DeadlineExceededError("the image was not decoded in time") from None
        finally:
            self._undecoded -= len(given)

    async def _compute(
        self, prepared: Sequence[_Prepared], deadline: float
    ) -> list[Prediction | EngineError]:
        outcomes = await self._batcher.submit([item.pixels for item in prepared], deadline)
        results: list[Prediction | EngineError] = []
        for item, outcome in zip(prepared, outcomes, strict=True):
            if isinstance(outcome.value, Exception):
                error = EngineError("the engine failed to compute this image")
                logger.error("%s", error, exc_info=outcome.value)
                results.append(error)
                continue
            timing = Timing(item.decode_s, item.preprocess_s, outcome.queue_s, outcome.run_s)
            prediction = self._prediction(outcome.value, timing)
            if self._observer:
                self._observer.prediction(prediction)
            results.append(prediction)
        return results

    def _prepare(self, image: bytes) -> _Prepared | ImageError:
        started = perf_counter()
        try:
            picture = decode(image, self._max_pixels)
        except ImageError as error:
            return error
        decoded = perf_counter()
        pixels = prepare(picture, self.card.preprocessing)
        return _Prepared(pixels, decoded - started, perf_counter() - decoded)

    def _outputs(self, images: Sequence[NDArray[np.uint8]]) -> list[_Output]:
        logits, novelty = self.engine.compute(np.stack(images))
        if not math.isfinite(logits.sum() + novelty.sum()):
            raise EngineError("the engine computed numbers that are not finite")
        probabilities = self.card.calibration.probabilities(logits)
        return list(zip(probabilities.tolist(), novelty.tolist(), strict=True))

    def _prediction(self, output: _Output, timing: Timing) -> Prediction:
        probabilities, novelty = output
        confidence = max(probabilities)
        return Prediction(
            label=self.card.labels[probabilities.index(confidence)],
            confidence=confidence,
            probabilities=tuple(probabilities),
            novelty=novelty,
            recognized=novelty <= 0.5,
            timing=timing,
        )

    def _empty_image(self) -> NDArray[np.uint8]:
        return np.zeros((self.card.model.num_channels, *self.card.model.input_shape), np.uint8)


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
    engine = create_engine(checkpoint, settings.engine, settings.device, settings.threads)
    prove(engine, checkpoint)
    predictor = Predictor(checkpoint.card, engine, settings)
    predictor.warm_up([1, settings.max_batch])
    return predictor
