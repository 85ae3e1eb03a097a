"""The example project's web server of a live site."""

from __future__ import annotations

import socket
import time

import requests

from ..live.site import Site


def serve(site: Site) -> str:
    """Start it on a free port; where it mounts the service. Raises ``RuntimeError`` with its log if it fails."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    site.serve("web", "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
    url = f"http://127.0.0.1:{port}/wechat"
    for _ in range(100):
        try:
            requests.get(f"{url}/health", timeout=5)
        except requests.ConnectionError:
            time.sleep(0.1)
        else:
            return url
    raise RuntimeError((site.folder / "web.log").read_text())
