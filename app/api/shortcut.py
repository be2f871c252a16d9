"""The way around FastAPI's routing for calls that must be fast."""

from collections.abc import Iterable

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app import problems


class Shortcut:
    """ASGI middleware: calls endpoints that need nothing of FastAPI but its documentation.

    Routing, dependencies and exit stacks cost more than all else that a small request does here.

    Args:
        routes: of the application; their paths hold no parameters, and their endpoints take the
            request and return a response.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[APIRoute]) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route for route in routes for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = None
        if scope["type"] == "http":
            route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except problems.HANDLED as error:
            response = await problems.handle(request, error)
        await response(scope, receive, send)
