"""Who reads explanations and predicts strengths, a backend each; how they are asked, and strengths on disk."""
