"""Real SDKs against the real service and the fake WeChat (``python -m tests.sdks``, ``docs/sdks.md``)."""
