"""gunicorn behind the nginx of this folder: ``gunicorn -c deploy/gunicorn.conf.py example_project.wsgi``.

Never on its own towards clients: a thread waits for a slow client, and eight bytes stop eight threads.
"""

import logging
import os

bind = os.environ.get("GUNICORN_BIND", "unix:/run/wechat-token/gunicorn.sock")
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = int(os.environ.get("GUNICORN_THREADS", "8"))

# A thread that waits for WeChat waits for WAIT_TIMEOUT (15 s) at most; ``timeout`` is about a worker that hangs.
timeout = 60
graceful_timeout = 30
keepalive = 75  # above nginx's for the same connections
max_requests = 100_000
max_requests_jitter = 10_000

limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 4096
# No header of a client's chooses SCRIPT_NAME or PATH_INFO; nginx does not pass such headers on either.
forwarder_headers = ""

worker_tmp_dir = "/dev/shm"  # noqa: S108  heartbeats of workers, on a file system that never blocks
accesslog = None  # nginx writes it, without queries
control_socket_disable = True


def on_starting(server):
    """gunicorn quotes in its log what it cannot read, with the key in it: let it say that it refused something."""
    server.log.error_log.addFilter(_without_quotation)


def _without_quotation(record: logging.LogRecord) -> bool:
    if str(record.msg).startswith("Invalid request from ip="):
        record.msg, record.args = str(record.msg).partition(": ")[0], ()
    return True
