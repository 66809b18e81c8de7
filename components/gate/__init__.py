"""Decide whether a model may be exported."""
