"""Export the trained model as a SavedModel."""
