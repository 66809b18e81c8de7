"""The deploy step: an endpoint of Vertex AI."""
