"""The ground under the protocol: what callers do to themselves with transactions, pools, replicas and hung peers.

Each test plays one situation in a process of its own, against a real database and a fake WeChat, and fails where
somebody waits longer than promised or gets the wrong token. ``site.py`` sets the scene, ``stage.py`` plays.
"""
