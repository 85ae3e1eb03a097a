"""Who may read tokens over HTTP (S3).

``keys.py`` makes client keys, ``scopes.py`` tells what they open, ``keyring.py`` holds the live ones in each process,
``networks.py`` judges where a request comes from, ``usage.py`` counts what was asked for, ``reads.py`` remembers which
key was given which token.
"""
