"""Real processes on real services: the harness, and the longer proofs (``python -m tests.live``)."""
