"""Measurements of speed, memory and learning: things compared are measured in one run."""
