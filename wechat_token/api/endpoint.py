"""What all views of the service share: methods, errors, headers, and freedom from the site's middleware."""

from __future__ import annotations

import contextvars
import logging
import math
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables

from .. import clock, process
from ..exceptions import WeChatTokenError
from ..throttle import Throttle
from .refusals import INTERNAL_ERROR, SERVICE_UNAVAILABLE, Problem, Refusal, refusal_of

logger = logging.getLogger("wechat_token.access")

_failures: Throttle
process.keep(globals(), _failures=Throttle)

View = Callable[..., HttpResponse]
Refuse = Callable[[Refusal], HttpResponse]


def endpoint(*methods: str, refuse: Refuse, wrong_method: Problem) -> Callable[[View], View]:
    """Make a view of a function that returns its answer or raises.

    ``refuse`` writes refusals in the dialect of the view. No exception leaves the view: Django's error pages
    and mails, and services such as Sentry, would show the URL and the locals of a request that carries a key
    (S2).
    """

    def decorate(view: View) -> View:
        @wraps(view)
        @sensitive_variables()
        def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method not in methods:
                return _finished(refuse(Refusal(wrong_method, headers={"Allow": ", ".join(methods)})))
            try:
                return _finished(view(request, *args, **kwargs))
            except Exception as exc:
                failure = exc
            # Out here: what fails while this one is handled, if only in a log handler, would show it as its context.
            try:
                return _finished(refuse(_refusal(failure, request)))
            finally:
                del failure

        return _free(_unaccompanied(answer))

    return decorate


def _unaccompanied(view: View) -> View:
    """Run ``view`` in an empty context.

    Error trackers keep a request's URL and body in context variables and send them along with whatever is logged
    meanwhile. Here they hold client keys and tokens (S2).
    """

    @wraps(view)
    def run(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return contextvars.Context().run(view, request, *args, **kwargs)

    return run


def _finished(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    # Django would log every refusal with the request attached, and mail the 503s to admins. What is worth a
    # line is logged where it is known: by the engine, or once a minute for wrong keys.
    response._has_been_logged = True  # type: ignore[attr-defined]  # Django's own
    return response


def _refusal(exc: Exception, request: HttpRequest) -> Refusal:
    refusal = refusal_of(exc)
    if refusal is None:
        # Places only: the text of somebody else's exception may hold anything (S2).
        frames = traceback.extract_tb(exc.__traceback__)
        where = " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
        _log_failure(exc, request, f"{type(exc).__name__} in {where}")
        return Refusal(INTERNAL_ERROR)
    if refusal.problem is SERVICE_UNAVAILABLE:
        _log_failure(exc, request, str(exc) if isinstance(exc, WeChatTokenError) else type(exc).__name__)
    return refusal


def _log_failure(exc: Exception, request: HttpRequest, what: str) -> None:
    """Once a minute for each sort of failure: while the database is down, anybody's request fails."""
    count = _failures.hit(type(exc).__name__, clock.monotonic())
    if count.number == 1:
        logger.error(
            "%s cannot be answered: %s. Failures of this sort in the minute before: %d.",
            request.path, what, count.before,
        )  # fmt: skip


def _free(view: View) -> View:
    """Out of reach of CSRF checks and LoginRequiredMiddleware (S5), in no transaction of the request (R3)."""
    view = csrf_exempt(login_not_required(view))
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def refuse_in_json(refusal: Refusal) -> HttpResponse:
    """``{"error": {"code", "message", …}}`` with the status that fits."""
    problem = refusal.problem
    body = {"error": {"code": problem.code, "message": problem.message, **refusal.details}}
    response = JsonResponse(body, status=problem.status, headers=dict(refusal.headers))
    set_retry_after(response, refusal)
    if problem.status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="wechat_token"'
    return response


def set_retry_after(response: HttpResponse, refusal: Refusal) -> None:
    if refusal.retry_after is not None:
        response["Retry-After"] = str(max(math.ceil(refusal.retry_after), 1))
