"""The parts of ``manage.py demo``, in the order in which they are used.

:mod:`.environment` (what the settings are to read), :mod:`.content` (accounts, login, client key),
:mod:`.processes` (web server, worker, beat), :mod:`.watch` (renewals and reads as they happen).
"""
