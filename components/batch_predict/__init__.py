"""The batch_predict step: a batch prediction job of Vertex AI."""
