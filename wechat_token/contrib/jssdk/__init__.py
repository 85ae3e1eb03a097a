"""Pages inside WeChat: their signatures for the JS-SDK, from Python, from a template and over HTTP.

``algorithms`` (pure: what WeChat computes, and what can be the URL of a page) ← ``signing`` (the public names: with the
account's ticket and the time) ← ``page`` (what a rendered page carries). The view that browsers ask without a key is
:mod:`wechat_token.api.public`, the script in the browser ``static/wechat_token/jssdk.js``.
"""
