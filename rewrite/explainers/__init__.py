"""Explainers: each file writes explanations in its own way; `base` says what it must offer."""
