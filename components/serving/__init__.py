"""The prediction server: an exported model behind HTTP."""
