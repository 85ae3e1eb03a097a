"""Pages inside WeChat: their signatures for the JS-SDK, from Python, from a template and over HTTP.

``signing`` (the public names: :mod:`wechat_token.platforms.signatures` with the account's ticket and the time) ←
``page`` (what a rendered page carries). The view that browsers ask without a key is :mod:`wechat_token.api.public`, the
script in the browser ``static/wechat_token/jssdk.js``.
"""
