"""The steps of the pipeline: `component.py` is the KFP signature, `step.py` the work."""
