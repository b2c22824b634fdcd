"""Engines: where a language model runs. None is needed by the embedded backends."""
