"""Numbers in, numbers out: paired tests, scores, costs, places, and the analysis of a run."""
