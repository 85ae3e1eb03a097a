from django.contrib import admin
from django.urls import include, path

from .pages import shared_page

urlpatterns = [
    path("page/<str:appid>/", shared_page, name="shared_page"),
    path("admin/", admin.site.urls),
    path("wechat/", include("wechat_token.urls")),
    path("wechat/", include("wechat_token.public_urls")),
]
