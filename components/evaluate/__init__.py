"""Score the trained model, its baseline and the ceiling of the data."""
