"""Named breakages of the protocol, and a command that shows that tests or simulation notice each one:
``python -m tests.mutants``.
"""
