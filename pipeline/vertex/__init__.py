"""Vertex AI: plan, checks, runs, schedules, tuning, endpoints."""
