"""The networks, one a file: between normalised features and a classifier's head.

A model of `trainer.config.MODEL_NAMES` is the module of its name here, with an `ARCHITECTURE`.
"""
