"""A typed client of the service: `Client` waits for answers, `AsyncClient` is awaited.

`calls` knows what they ask, `answers` what comes back, `errors` one exception for each cause. Needs
httpx (the extra `client`) and nothing of the server.
"""

from app.client import answers, errors
from app.client.answers import Explanation, Metadata, Number, Prediction
from app.client.calls import Image
from app.client.client import AsyncClient, Client
from app.client.errors import ClientError, ProblemError

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Explanation",
    "Image",
    "Metadata",
    "Number",
    "Prediction",
    "ProblemError",
    "answers",
    "errors",
]
