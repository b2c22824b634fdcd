"""Documents → windows → splits, and which of them are simulated."""
