"""Who writes explanations, a backend each; beside them exemplars, the file of explanations, and who judges them."""
