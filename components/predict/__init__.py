"""Predicting: an exported model on shards, by this process or by Beam."""
