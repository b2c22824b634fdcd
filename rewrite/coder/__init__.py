"""The sparse coder: its equations, its training, the files of sparsify and SAELens, true activations on disk."""
