"""A typed client of the service, which needs httpx: `from app.client import Client`."""

from app.client.client import *  # noqa: F403  all that it names: answers and errors too
