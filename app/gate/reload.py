"""The change of what serves, under load."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from app.gate.keys import Keys, KeysError
from app.gate.service import Service
from app.inference.decoders import Decoders
from app.inference.engines import EngineError
from app.inference.models import Model
from app.inference.predictor import Predictor
from app.settings import Settings
from app.wire.problems import RELOAD_FAILED, RequestError
from model.checkpoint.folder import CheckpointError

# What can be wrong with a checkpoint, an engine or the keys; each message is one sentence.
UNUSABLE = (CheckpointError, EngineError, KeysError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replacement:
    """What a reload would put in place, proved to work."""

    model: Model
    keys: Keys


class Reload:
    """Replaces what a service answers with, or goes on with what there was.

    Args:
        service: whose model and keys are replaced.
        load: makes a predictor, ready to answer.
    """

    def __init__(self, service: Service, load: Callable[[Settings, Decoders], Predictor]) -> None:
        self._service = service
        self._load = load
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self) -> None:
        """Puts what the checkpoint folder and the keys' file hold now in place.

        Raises:
            RequestError: it can't be used.
        """
        async with self._one_at_a_time:
            try:
                replacement = await asyncio.to_thread(prepare, self._service, self._load)
            except UNUSABLE as error:
                logger.error("reload: %s", error)
                raise RequestError(RELOAD_FAILED, str(error)) from None
            put_in_place(self._service, replacement)


def prepare(service: Service, load: Callable[[Settings, Decoders], Predictor]) -> Replacement:
    """Loads and proves what is to serve next; takes seconds, so not for the event loop.

    Raises:
        CheckpointError, EngineError, KeysError: it can't be used.
    """
    return Replacement(Model(load(service.settings, service.decoders)), Keys.read(service.settings))


def put_in_place(service: Service, replacement: Replacement) -> None:
    """Answers with the replacement from now on; requests under way end with what was before."""
    service.models.put_in_place(replacement.model)
    service.keys = replacement.keys
    card = replacement.model.card
    logger.info("serving %s %s", card.name, card.version)
