"""The models that answer: put in place, and retired when no request has them any more."""

import asyncio
import contextlib
import ctypes
import io
import sys
from collections.abc import Callable
from contextvars import ContextVar

import numpy as np

from app.inference.engines import NoExplanationsError
from app.inference.explainer import Explainer
from app.inference.predictor import Predictor
from model.checkpoint.card import Card
from model.checkpoint.folder import PARTS_FOLDER
from model.modalities import InputError


class Model:
    """A model in memory, proved to work: its card, and what answers with it.

    Args:
        predictor: warmed up.

    Attributes:
        explainer: explains the predictor's answers.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.explainer = Explainer(predictor)
        self._holds: set[Hold] = set()
        self._free = asyncio.Event()
        self._free.set()

    @property
    def card(self) -> Card:
        """What the checkpoint says of itself."""
        return self.predictor.card

    def prove_rest(self) -> list[str]:
        """Tries what answers beside the predictor: explanations and parts; blocks.

        Returns: a sentence for each that does not work. Parts are looked for no more then, and
        explanations say at each request what they lack.
        """
        faults = []
        try:
            self.explainer.load()
        except NoExplanationsError:
            pass  # there are none to prove
        except Exception as error:
            faults.append(f"/explain can't answer: {error}")
        try:
            self._try_parts()
        except Exception as error:
            self.predictor.find_parts = None
            faults.append(f"/read can't answer: {PARTS_FOLDER} holds something else: {error!r}")
        return faults

    async def close(self) -> None:
        """Takes no more images, and frees the memory when those taken have been answered."""
        await self.explainer.close()
        await self.predictor.close()
        # Predictor and batcher refer to each other: the garbage collector would come much later.
        with contextlib.suppress(AttributeError):  # it was closed before
            del self.predictor.engine

    def taken(self, hold: "Hold") -> None:
        """A request holds it."""
        self._holds.add(hold)
        self._free.clear()

    def released(self, hold: "Hold") -> None:
        """A request holds it no more; on the event loop."""
        self._holds.discard(hold)
        if not self._holds:
            self._free.set()

    async def until_free(self) -> None:
        """Returns when no request holds it."""
        await self._free.wait()

    def _try_parts(self) -> None:
        """Finds the parts of a small picture, a bar, and has them read."""
        predictor, spec = self.predictor, self.card.input
        if predictor.find_parts is None:
            return
        bar, third = np.zeros(spec.array_shape, spec.dtype), spec.shape[-1] // 3
        bar[..., third : 2 * third] = spec.unit
        file = io.BytesIO()
        predictor.modality.picture(bar, spec).save(file, "PNG")
        try:
            found = predictor.find_parts(file.getvalue(), predictor.limits)
        except InputError:
            return
        if found.inputs:
            logits, novelty = predictor.engine.compute(np.stack(found.inputs))
            found.choose(self.card.calibration.probabilities(logits), novelty)


class Hold:
    """The models that one request may use: those that it has asked for. `release` ends it."""

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: set[Model] = set()

    def take(self, model: Model) -> None:
        """Keeps a model from being closed."""
        if model not in self._models:
            self._models.add(model)
            model.taken(self)

    def release(self) -> None:
        """Lets all go; on the event loop."""
        for model in self._models:
            model.released(self)


HOLD: ContextVar[Hold | None] = ContextVar("hold", default=None)  # of the request under way


class Models:
    """The models of one process by name, at most one for now. Belongs to the event loop.

    Args:
        on_change: called with each model that is put in place.
        linger_s: seconds for which a request may hold a model after another took its place.

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
        """The model of this name, if there is one; the request under way holds it."""
        return self._held(self._by_name.get(name))

    def take_default(self) -> Model | None:
        """The default model, if there is one; the request under way holds it."""
        return self._held(self.default)

    def put_in_place(self, model: Model) -> None:
        """Makes a model answer from now on; requests under way end with the one before."""
        self._on_change(model)
        for before in self._by_name.values():
            self._retiring[before] = asyncio.get_running_loop().create_task(self._retire(before))
        self._by_name = {model.card.name: model}
        self.default = model

    async def until_retired(self, limit_s: float) -> bool:
        """Waits until no other model than those that answer is in memory; false at the limit."""
        if not self._retiring:
            return True
        _, late = await asyncio.wait(list(self._retiring.values()), timeout=limit_s)
        return not late

    async def close(self) -> None:
        """Waits for the images taken to be answered."""
        for task in self._retiring.values():
            task.cancel()
        for model in (*self._retiring, *self._by_name.values()):
            await model.close()

    @staticmethod
    def _held(model: Model | None) -> Model | None:
        if model is not None and (hold := HOLD.get()) is not None:
            hold.take(model)
        return model

    async def _retire(self, model: Model) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger_s):
                    await model.until_free()
            await model.close()
            await asyncio.to_thread(_return_memory)
        finally:
            del self._retiring[model]


def _return_memory() -> None:
    """Gives free memory back to the system; glibc would keep some 100 MB after a few reloads."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
