"""Train the model and its baseline."""
