"""``{% load wechat_token %}{% wechat_jssdk "scanQRCode" %}``: a page that uses the JS-SDK (docs/jssdk.md)."""

from __future__ import annotations

from typing import Any

from django import template
from django.http import HttpRequest
from django.template import Context
from django.templatetags.static import static
from django.utils.html import format_html, json_script
from django.utils.safestring import SafeString

from ..contrib.jssdk.page import page_data, weixins_script

register = template.Library()


@register.simple_tag(takes_context=True)
def wechat_jssdk(
    context: Context, *apis: str, account: Any = None, tags: str = "", debug: bool = False, nonce: str = ""
) -> SafeString:  # fmt: skip
    """Three elements: the signed URL as data, WeChat's script, ours. No inline code, so a strict policy passes it.

    ``apis``: names for ``jsApiList``; ``tags``: for ``openTagList``, with blanks between; ``nonce``: of the
    Content-Security-Policy, by default the one that Django 6 or django-csp has for this request. The context must have
    the ``request``, as it has by Django's own context processor.
    """
    request: HttpRequest | None = context.get("request")
    if request is None:
        raise template.TemplateSyntaxError(
            "wechat_jssdk needs the request: add django.template.context_processors.request to the template engine."
        )
    data = page_data(request, account or None, apis, tags.split(), debug=debug)
    nonce = nonce or _nonce(context, request)
    attribute = format_html(' nonce="{}"', nonce) if nonce else ""
    return format_html(
        '{}<script src="{}"{}></script><script src="{}"{}></script>',
        json_script(data, "wechat-jssdk"), weixins_script(), attribute,
        static("wechat_token/jssdk.js"), attribute,
    )  # fmt: skip


def _nonce(context: Context, request: Any) -> str:
    return str(context.get("csp_nonce") or getattr(request, "csp_nonce", "") or "")
