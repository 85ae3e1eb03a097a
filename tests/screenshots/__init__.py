"""Pictures of the admin, by ``python -m tests.screenshots``: those of the documentation, or of every look to judge."""
