"""Who may read tokens over HTTP (S3).

``keys.py`` makes client keys, ``keyring.py`` holds the live ones in each process, ``networks.py`` and ``throttle.py``
judge where a request comes from and how often it fails, ``usage.py`` counts what was asked for.
"""
