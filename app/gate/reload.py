"""The change of what serves, under load."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self, TypeVar

from app.gate.keys import Keys, KeysError
from app.gate.service import Service
from app.inference.engines import EngineError
from app.inference.models import Model
from app.inference.predictor import load_predictor
from app.inference.proof import prove_apart
from app.settings import Settings
from app.wire.problems import RELOAD_FAILED, RequestError
from model.checkpoint.folder import Checkpoint, CheckpointError, read_checkpoint

# What can be wrong with a checkpoint, an engine or the keys; each message is one sentence.
UNUSABLE = (CheckpointError, EngineError, KeysError)
# Seconds for which a reload waits for requests that hold the model before the one that serves.
RETIRED_LIMIT_S = 90.0

logger = logging.getLogger(__name__)

Made = TypeVar("Made")


@dataclass(frozen=True)
class Release:
    """What is served, read whole from its files."""

    checkpoint: Checkpoint
    keys: Keys

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """What the files hold now.

        Raises:
            CheckpointError, KeysError: they hold something else.
        """
        return cls(read_checkpoint(settings.weights), Keys.read(settings))

    @classmethod
    def proved(cls, settings: Settings) -> Self:
        """What the files hold now, proved to work; takes seconds, so not for the event loop.

        Raises:
            CheckpointError, EngineError, KeysError: it can't be used.
        """
        release = cls.read(settings)
        prove_apart(settings, release.checkpoint)
        return release


@dataclass(frozen=True)
class Replacement:
    """What a reload would put in place, in memory."""

    model: Model
    keys: Keys


class Reload:
    """Replaces what a service answers with, or goes on with what there was.

    One reload runs at a time. All who ask meanwhile share the next one, for the files may have
    changed after the one that runs had read them.

    Args:
        service: whose model and keys are replaced.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Puts what the checkpoint folder and the keys' file hold now in place.

        Raises:
            RequestError: it can't be used.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._reload())
            self._next.add_done_callback(_look_at)
        await asyncio.shield(self._next)

    async def _reload(self) -> None:
        async with self._one_at_a_time:
            self._next = None
            settings = self._service.settings
            try:
                release = await in_thread(lambda: Release.proved(settings))
                replacement = await prepare(self._service, release)
                try:
                    put_in_place(self._service, replacement)
                except BaseException:
                    await replacement.model.close()
                    raise
            except Exception as error:
                sentence = told(error)
                logger.error("reload: %s", sentence)
                raise RequestError(RELOAD_FAILED, sentence) from None


async def prepare(service: Service, release: Release) -> Replacement:
    """Loads what is to serve next; takes seconds, in a thread.

    Raises:
        CheckpointError, EngineError: it can't be used, or requests under way leave no room for it.
    """
    if not await service.models.until_retired(RETIRED_LIMIT_S):
        raise EngineError("requests under way still hold the model before the one that serves")
    predictor = await in_thread(lambda: load_predictor(service.settings, release.checkpoint))
    return Replacement(Model(predictor), release.keys)


def put_in_place(service: Service, replacement: Replacement) -> None:
    """Answers with the replacement from now on; requests under way end with what was before."""
    service.models.put_in_place(replacement.model)
    service.keys = replacement.keys
    card = replacement.model.card
    logger.info("serving %s %s", card.name, card.version)


def told(error: Exception) -> str:
    """What is wrong, in a sentence; an error that nobody foresaw is logged with its origin."""
    if isinstance(error, UNUSABLE):
        return str(error)
    logger.error("reload: an unexpected error", exc_info=error)
    return f"an unexpected {type(error).__name__}: {error}"


async def in_thread(function: Callable[[], Made]) -> Made:
    """The function's result, from a thread that keeps no process from ending."""
    future = Future[Made]()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, name="loader", daemon=True).start()
    return await asyncio.wrap_future(future)


def _look_at(task: "asyncio.Task[None]") -> None:
    """Nobody may wait for it any more, and an error that nobody looks at is told as a fault."""
    if not task.cancelled():
        task.exception()
