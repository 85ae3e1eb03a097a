"""Platforms that the package does not know, written from docs/sources.md and registered by their dotted paths."""
