"""What handlers answer with."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from app.gate.keys import Keys
from app.inference.budgets import Budgets
from app.inference.decoders import Decoders
from app.inference.explainer import Explainer
from app.inference.models import Model, Models
from app.inference.predictor import Predictor
from app.settings import Settings
from app.telemetry.metrics import Metrics
from app.wire.problems import NOT_READY, RequestError
from model.checkpoint.card import Card

# Keys of a request's scope.
SERVICE = "perceiver.service"
TAKE = "perceiver.take"  # takes room for so many bytes, until the request ends
FAULT = "fault"  # key of its state: the error that what follows of the body would be


@dataclass(eq=False)
class Service:
    """What all requests share.

    Attributes:
        settings: of the service.
        budgets: of what all requests may hold at once.
        decoders: of files.
        models: that answer.
        keys: that are good now.
        metrics: where it counts.
        draining: whether it will stop soon, and wants no more work.
        reload: puts what the checkpoint folder holds now in the place of what serves; raises
            `RequestError` where that can't be used, and goes on with what there was.
    """

    settings: Settings
    budgets: Budgets
    decoders: Decoders
    models: Models
    keys: Keys
    metrics: Metrics
    draining: bool = False
    reload: Callable[[], Awaitable[None]] = field(init=False)

    @classmethod
    def of(cls, connection: HTTPConnection) -> "Service":
        """The service that a request came to."""
        service: Service = connection.scope[SERVICE]
        return service

    @property
    def model(self) -> Model:
        """The model; the request under way may go on with it, whatever is reloaded meanwhile.

        Raises:
            RequestError: none is loaded yet.
        """
        model = self.models.take_default()
        if model is None:
            raise RequestError(NOT_READY, "the model is not loaded")
        return model

    @property
    def card(self) -> Card:
        """The model's, which the request under way does not go on to hold; raises as `model`."""
        if self.models.default is None:
            raise RequestError(NOT_READY, "the model is not loaded")
        return self.models.default.card

    @property
    def predictor(self) -> Predictor:
        """The model's; raises as `model` does."""
        return self.model.predictor

    @property
    def explainer(self) -> Explainer:
        """The model's; raises as `model` does."""
        return self.model.explainer

    @property
    def started(self) -> bool:
        """Whether a model is loaded."""
        return self.models.default is not None

    def is_full(self) -> bool:
        """Whether another image would be refused, for there are too many."""
        model = self.models.default
        return model is not None and model.predictor.is_full()

    def deadline(self) -> float:
        """Until when a request whose body is read by now must be answered, on the loop's clock."""
        return asyncio.get_running_loop().time() + self.settings.request_timeout_s
