"""Screens: which pairs of a latent and a position a language model is asked about, a file each; see `base.py`."""
