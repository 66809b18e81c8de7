"""The DAG, its parameters, and where it runs."""
