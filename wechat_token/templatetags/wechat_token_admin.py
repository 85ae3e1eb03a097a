"""``{% wechat_token_problems %}``: what is wrong with the site, for the index page of an admin."""

from __future__ import annotations

from typing import Any

from django import template
from django.contrib import admin
from django.template.context import RequestContext

from ..admin import notices

register = template.Library()


@register.inclusion_tag("admin/wechat_token/problems.html", takes_context=True)
def wechat_token_problems(context: RequestContext) -> dict[str, Any]:
    """Nothing for whom may not see the accounts, or where the site does not have them."""
    request = context.get("request")
    if request is None or not request.user.has_perm("wechat_token.view_account"):
        return {"problems": []}
    return notices.of_index(admin.site, request)
