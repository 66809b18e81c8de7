"""Clusters that run Kubeflow Pipelines: a client that tells the truth, and a local one by kind."""
