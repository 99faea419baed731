"""A connect that may take several requests: redirects, digest authentication, and the cookies of each answer."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, NamedTuple

from tornado_ws.client.cookies import checked_jar, cookie_header, keep_cookies
from tornado_ws.client.digest import DigestError, answer_challenge, digest_challenge
from tornado_ws.client.futures import ConnectFuture
from tornado_ws.client.redirects import Redirects, same_origin, without_private
from tornado_ws.client.request import copy_of, take_user, websocket_request
from tornado_ws.errors import HandshakeRejectedError, RedirectError
from tornado_ws.escaping import shown, without_password

if TYPE_CHECKING:
    from tornado_ws.client.connection import WebSocketClientConnection


class _Step(NamedTuple):
    """What one attempt asks for."""

    #: With a ws or wss URL; without a user, and without the cookies of the jar.
    request: Any
    #: The same URL, as it is sent: http or https.
    url: str
    #: Whether a redirect has led away from the origin of the first one.
    is_elsewhere: bool = False
    #: The Authorization header that answers a challenge, and how many were answered.
    authorization: str | None = None
    digests: int = 0


class Attempts:
    """One connection after the other, each given up when the Future is, until one is open or none can follow."""

    def __init__(
        self,
        request: Any,
        connect: Callable[[Any, bool], WebSocketClientConnection],
        redirects: Redirects | None,
        jar: CookieJar | None,
        is_bound: bool = False,
    ) -> None:
        """Begin the first one.

        :param request: with a ws or wss URL.
        :param connect: makes a connection for a request; the second argument is whether a redirect has led to another
            origin than that of the first one.
        :param redirects: None follows none.
        :param is_bound: whether there is a way to the first origin only.
        :raises ValueError: what ``connect`` raises for the first one, and for what is no jar.
        """
        self.connect_future: ConnectFuture[WebSocketClientConnection] = ConnectFuture()
        self._connect = connect
        self._redirects = redirects
        self._jar = None if jar is None else checked_jar(jar)
        self._is_bound = is_bound
        request = copy_of(request)
        self._user = take_user(request)
        self._wants_digest = request.auth_mode == "digest"
        # Not the IOLoop's, which goes by the clock of the day.
        self._time = self.connect_future.get_loop().time
        limits = [limit for limit in (request.connect_timeout, request.request_timeout) if limit]
        self._deadline = self._time() + min(limits) if limits else None
        self._current: asyncio.Future[Any] | None = None
        self._begin(_Step(request, websocket_request(request).url))
        self.connect_future.add_done_callback(self._give_up)

    def _give_up(self, _: object) -> None:
        if self._current is not None:
            self._current.cancel()

    # One attempt

    def _begin(self, step: _Step) -> None:
        sent = copy_of(step.request)
        if cookie := self._cookie(step):
            sent.headers["Cookie"] = cookie
        if self._deadline is not None:
            # 0 would be no limit.
            sent.connect_timeout = sent.request_timeout = max(0.001, self._deadline - self._time())
        if self._wants_digest:
            sent.auth_mode = None
            if step.authorization is not None:
                sent.headers["Authorization"] = step.authorization
        elif self._user is not None:
            sent.auth_username, sent.auth_password = self._user
        conn = self._connect(sent, step.is_elsewhere)
        self._current = conn.connect_future
        conn.connect_future.add_done_callback(functools.partial(self._on_answer, conn, step))

    def _cookie(self, step: _Step) -> str:
        given: str = step.request.headers.get("Cookie", "")
        return given if self._jar is None else cookie_header(self._jar, step.url, given)

    def _on_answer(self, conn: WebSocketClientConnection, step: _Step, future: asyncio.Future[Any]) -> None:
        self._current = None
        if future.cancelled():
            self.connect_future.cancel()
            return
        error = future.exception()
        headers = conn.headers if error is None else getattr(error, "headers", None)
        # What goes there now: the answer may set another one.
        cookie = self._cookie(step)
        if self._jar is not None and headers is not None:
            keep_cookies(self._jar, step.url, headers)
        if self.connect_future.done():
            # Given up in the moment between.
            if error is None:
                conn._ws_abort()
        elif error is None:
            self.connect_future.set_result(conn)
        else:
            try:
                following = self._following(step, cookie, error)
                if following is not None:
                    self._begin(following)
            except Exception as refused:
                self.connect_future.set_exception(refused)
            else:
                if following is None:
                    self.connect_future.set_exception(error)

    # The next one

    def _following(self, step: _Step, cookie: str, error: BaseException) -> _Step | None:
        if not isinstance(error, HandshakeRejectedError):
            return None
        if error.status == 401 and self._wants_digest and self._user is not None:
            return self._with_digest(step, self._user, error)
        if self._redirects is None:
            return None
        location = self._redirects.next(step.url, error)
        return None if location is None else self._redirected(self._redirects, step, cookie, location, error)

    def _redirected(
        self, redirects: Redirects, step: _Step, cookie: str, location: str, error: HandshakeRejectedError
    ) -> _Step:
        assert error.response is not None
        request = copy_of(step.request)
        request.url = location
        try:
            url = websocket_request(request).url
        except ValueError as wrong:
            raise RedirectError(error.response, f"redirect that cannot be followed: {wrong}") from None
        is_elsewhere = step.is_elsewhere
        if not same_origin(step.url, url):
            if self._is_bound:
                words = f"redirect to {shown(without_password(location))}, which is not where unix= or sock= leads"
                raise RedirectError(error.response, words)
            is_elsewhere = True
            request.headers = without_private(request.headers)
            self._user = None
        following = _Step(request, url, is_elsewhere=is_elsewhere)
        redirects.check((step.url, cookie), (url, self._cookie(following)), error.response)
        return following

    def _with_digest(
        self, step: _Step, user: tuple[str | bytes, str | bytes], error: HandshakeRejectedError
    ) -> _Step | None:
        try:
            challenge = digest_challenge(error.headers)
            # A second one is no refusal if it says that the first one came too late.
            if step.digests > 1 or (step.digests == 1 and challenge.get("stale", "").lower() != "true"):
                return None
            username, password = (part.decode("latin-1") if isinstance(part, bytes) else part for part in user)
            authorization = answer_challenge(challenge, step.url, username, password)
        except DigestError as why:
            error.reason = f"{error.reason}; {why}"
            return None
        return step._replace(authorization=authorization, digests=step.digests + 1)
