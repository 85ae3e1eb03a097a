"""A page as a site has it inside WeChat: one tag, and below it what the tag put into the page."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def shared_page(request: HttpRequest, appid: str) -> HttpResponse:
    response = render(request, "example_project/page.html", {"appid": appid})
    response["Cache-Control"] = "no-store"  # a signature kept is one for another URL, or by a dead ticket
    return response
