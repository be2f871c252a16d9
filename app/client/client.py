"""`Client` and `AsyncClient`: the same calls, one waited for and one awaited."""

import time
from collections.abc import Iterable
from typing import Self

import anyio
import httpx

from app.client.answers import Explanation, Metadata, Number, Prediction
from app.client.calls import Calls, Flow, Image, Outcome, T
from app.client.errors import ProblemError

RETRIES = 4
TIMEOUT_S = 30.0


class Client:
    """Asks the service; use it as a context manager, or call `close`.

    Args:
        url: of the service, such as http://127.0.0.1:8000.
        api_key: where the service wants one.
        timeout_s: for each try.
        retries: further tries of what is refused for now, and of connections that fail.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        self._calls = Calls(url, api_key, httpx.Timeout(timeout_s), retries)
        self._http = httpx.Client()

    def predict(self, image: Image) -> Prediction:
        """The label of one image. Raises ClientError, as all calls do."""
        return self._run(self._calls.predict(image))

    def predict_batch(self, images: Iterable[Image]) -> list[Prediction | ProblemError]:
        """The labels of any number of images, in order; one that can't be read has its error.

        Asked in as many requests as the service's limits take.
        """
        return self._run(self._calls.predict_batch(images))

    def explain(self, image: Image) -> Explanation:
        """The label of one image, and why."""
        return self._run(self._calls.explain(image))

    def read(self, image: Image) -> Number:
        """All parts of a picture, such as the digits of a number."""
        return self._run(self._calls.read(image))

    def metadata(self) -> Metadata:
        """The model and what serves it."""
        return self._run(self._calls.metadata())

    def health(self) -> bool:
        """Whether the service can answer now; asked once."""
        return self._run(self._calls.health())

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome | None = None
        while True:
            try:
                wanted = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(wanted, float):
                time.sleep(wanted)
                outcome = None
                continue
            try:
                outcome = self._http.send(wanted)
            except httpx.TransportError as error:
                outcome = error


class AsyncClient:
    """As `Client`, to be awaited."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        self._calls = Calls(url, api_key, httpx.Timeout(timeout_s), retries)
        self._http = httpx.AsyncClient()

    async def predict(self, image: Image) -> Prediction:
        """See `Client.predict`."""
        return await self._run(self._calls.predict(image))

    async def predict_batch(self, images: Iterable[Image]) -> list[Prediction | ProblemError]:
        """See `Client.predict_batch`."""
        return await self._run(self._calls.predict_batch(images))

    async def explain(self, image: Image) -> Explanation:
        """See `Client.explain`."""
        return await self._run(self._calls.explain(image))

    async def read(self, image: Image) -> Number:
        """See `Client.read`."""
        return await self._run(self._calls.read(image))

    async def metadata(self) -> Metadata:
        """See `Client.metadata`."""
        return await self._run(self._calls.metadata())

    async def health(self) -> bool:
        """See `Client.health`."""
        return await self._run(self._calls.health())

    async def close(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome | None = None
        while True:
            try:
                wanted = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(wanted, float):
                await anyio.sleep(wanted)
                outcome = None
                continue
            try:
                outcome = await self._http.send(wanted)
            except httpx.TransportError as error:
                outcome = error
