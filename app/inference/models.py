"""The models that answer: put in place, and retired when no request can have them any more."""

import asyncio
from collections.abc import Callable

from app.inference.explainer import Explainer
from app.inference.predictor import Predictor
from model.checkpoint.card import Card


class Model:
    """A model in memory, proved to work: its card, and what answers with it.

    Args:
        predictor: warmed up.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._explainer: Explainer | None = None

    @property
    def card(self) -> Card:
        """What the checkpoint says of itself."""
        return self.predictor.card

    @property
    def explainer(self) -> Explainer:
        """What explains the predictor's answers; made when first asked for."""
        if self._explainer is None:
            self._explainer = Explainer(self.predictor)
        return self._explainer

    async def close(self) -> None:
        """Takes no more images and returns when those taken have been answered."""
        if self._explainer is not None:
            await self._explainer.close()
        await self.predictor.close()


class Models:
    """The models of one process by name, at most one for now. Belongs to the event loop.

    Args:
        on_change: called with each model that is put in place.
        linger_s: seconds for which a request may use a model after another took its place.

    Attributes:
        default: the model of calls that name none; None where none is loaded.
    """

    def __init__(self, on_change: Callable[[Model], None], linger_s: float) -> None:
        self._on_change = on_change
        self._linger_s = linger_s
        self.default: Model | None = None
        self._by_name: dict[str, Model] = {}
        self._retiring: dict[Model, asyncio.Task[None]] = {}

    def get(self, name: str) -> Model | None:
        """The model of this name, if there is one."""
        return self._by_name.get(name)

    def put_in_place(self, model: Model) -> None:
        """Makes a model answer from now on; requests under way end with the one before."""
        for before in self._by_name.values():
            self._retiring[before] = asyncio.get_running_loop().create_task(self._retire(before))
        self._by_name = {model.card.name: model}
        self.default = model
        self._on_change(model)

    async def close(self) -> None:
        """Waits for the images taken to be answered."""
        for task in self._retiring.values():
            task.cancel()
        for model in (*self._retiring, *self._by_name.values()):
            await model.close()

    async def _retire(self, model: Model) -> None:
        await asyncio.sleep(self._linger_s)
        del self._retiring[model]
        await model.close()
