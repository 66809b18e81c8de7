"""Measurements of speed, memory and learning. Each prints ratios of things measured in one run."""
