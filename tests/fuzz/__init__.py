"""A bounded fuzz of the HTTP service: everything that a client can choose, at a real gunicorn (``__main__``)."""
