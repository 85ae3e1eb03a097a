"""The HTTP service: tokens for programs that hold a client key and never the AppSecret.

``accounts.py`` is the plain REST dialect, ``weixin.py`` speaks WeChat's own, ``health.py`` answers monitors.
All go through ``access.py`` (who is asking), ``service.py`` (what a key may do) and ``endpoint.py`` (what all
views share).
"""
