"""The example project for child processes of the live tests: apart from everything else on the same services."""

import json
import os

from example_project.settings import *  # noqa: F403  the point of this file
from example_project.settings import (
    CACHES,
    CELERY_BROKER_TRANSPORT_OPTIONS,
    CELERY_BROKER_URL,
    DATABASES,
    WECHAT_TOKEN,
    database,
)

_run = os.environ["WECHAT_TOKEN_LIVE_RUN"]
for _cache in CACHES.values():
    _cache["KEY_PREFIX"] = _run
if CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS["global_keyprefix"] = f"{_run}:"
CELERY_TASK_DEFAULT_QUEUE = _run
WECHAT_TOKEN.update(json.loads(os.environ.get("WECHAT_TOKEN_LIVE_SETTINGS", "{}")))

_isolation = os.environ.get("WECHAT_TOKEN_LIVE_ISOLATION", "")
if _isolation and DATABASES["default"]["ENGINE"].endswith("postgresql"):
    # Django's own option does not reach statements outside of atomic(), which is what the engine's are.
    _level = _isolation.replace(" ", "\\ ")
    DATABASES["default"]["OPTIONS"]["options"] = f"-c default_transaction_isolation={_level}"
elif _isolation:
    DATABASES["default"]["OPTIONS"]["isolation_level"] = _isolation

_pool = os.environ.get("WECHAT_TOKEN_LIVE_POOL", "")
if _pool and DATABASES["default"]["ENGINE"].endswith("postgresql"):
    DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 0, "max_size": int(_pool), "timeout": 10}
    DATABASES["default"]["CONN_MAX_AGE"] = 0

if os.environ.get("WECHAT_TOKEN_LIVE_REPLICA"):
    DATABASES["replica"] = database(os.environ["WECHAT_TOKEN_LIVE_REPLICA"])
    DATABASE_ROUTERS = ["tests.live.replica.ReadsFromReplica"]
