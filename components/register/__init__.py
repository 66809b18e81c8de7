"""The register step: Vertex AI's Model Registry."""
