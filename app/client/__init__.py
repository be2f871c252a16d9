"""A typed client of the service: `Client`, `AsyncClient`, and one exception for each cause."""

from app.client.client import AsyncClient, Client, ClientError, ProblemError

__all__ = ["AsyncClient", "Client", "ClientError", "ProblemError"]
