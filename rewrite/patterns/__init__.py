"""The language of rules: grammar, what words and places are, and how rules are chosen for a latent."""
