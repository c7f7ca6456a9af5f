"""The page over HTTP: on this machine for whoever sits at it, elsewhere for whoever has the token."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import socket
import sys
import webbrowser
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from prunebench.dashboard.documents import to_json
from prunebench.dashboard.page import FILES, page_file
from prunebench.dashboard.store import Store
from prunebench.errors import UsageError

POLICY = (  # scripts and styles only from here, and nothing sent anywhere else
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
Next = Callable[[Request], Awaitable[Response]]


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_app(store: Store, host: str, token: str | None) -> Starlette:
    """The dashboard as an ASGI application.

    Args:
        host: the address it is served on. On loopback only that name is answered, so that no other site's page can
            reach it under a name of its own (DNS rebinding).
        token: what a browser must show once, as ?token=..., to get the cookie that everything else asks for.
    """

    def page(request: Request) -> Response:
        return Response(page_file("index.html"), media_type="text/html")

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        return Response(page_file(name), media_type=FILES[name]) if name in FILES else _nothing()

    def runs(request: Request) -> Response:
        since = request.query_params.get("since", "0")
        return _json(request, store.runs(int(since) if re.fullmatch("[0-9]{1,9}", since) else 0))

    def document(request: Request) -> Response:
        found = store.document(request.path_params["key"])
        return _nothing() if found is None else _json(request, found)

    names = ["localhost", "127.0.0.1", "[::1]", host] if is_loopback(host) else ["*"]
    return Starlette(
        routes=[
            Route("/", page),
            Route("/page/{name:path}", static),
            Route("/api/runs", runs),
            Route("/api/{key:path}", document),
        ],
        middleware=[
            Middleware(_Guard, token=token),
            Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False),
            Middleware(GZipMiddleware, minimum_size=10_000, compresslevel=1),
        ],
    )


class _Guard:
    """Puts HEADERS on every answer, and turns away who has no token where there is one. Plain ASGI."""

    def __init__(self, app: Any, token: str | None) -> None:
        self._app, self._token = app, token
        self._cookie = f"prunebench-{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"  # one a server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        answer = self._refusal(Request(scope)) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """None for who may come in."""
        if self._token is None:
            return None
        if _same(request.query_params.get("token"), self._token):
            answer = RedirectResponse("/", status_code=303)  # takes the token out of the address
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            return answer
        if _same(request.cookies.get(self._cookie), self._token):
            return None
        return PlainTextResponse("Open the address that prunebench dashboard printed: it has the token.", 401)


def _same(given: str | None, token: str) -> bool:
    return given is not None and secrets.compare_digest(given.encode(), token.encode())


def _nothing() -> Response:
    return PlainTextResponse("There is nothing here.", 404)


def _json(request: Request, value: Any) -> Response:
    body = to_json(value)
    tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, media_type="application/json", headers={"ETag": tag})


def serve(store: Store, host: str, port: int, open_browser: bool) -> None:
    """Serves until Ctrl-C. Prints the address.

    Raises:
        UsageError: the address cannot be had.
    """
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    listener = listen(host, port)
    store.runs()  # what is there is read before the first visitor waits for it
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/" + (f"?token={quote(token)}" if token else "")
    print(address, flush=True)
    print("Ctrl-C ends it.", file=sys.stderr)
    if open_browser:
        webbrowser.open(address)
    server = uvicorn.Server(uvicorn.Config(make_app(store, host, token), log_level="warning", server_header=False))
    server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        advice = "choose another --port, or --port 0 for any that is free"
        raise UsageError(f"dashboard on {host}:{port}: {error.strerror}: {advice}") from error
