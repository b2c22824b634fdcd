"""Rewrite one layer of a transformer in natural language, and say how much of the model survives.

    train      a sparse coder learns what the layer does, in latents                        1_coder
    collect    each latent's true activations on three splits that share no document        2_activations
    explain    an explainer writes down in plain language what each latent does             3_explanations.jsonl
    simulate   a simulator reads only that text and predicts each latent on new text        4_simulations
    score      how good each explanation is, on text that it was not made from              4_scores.parquet
    evaluate   calibrated predictions are written at the layer; losses under every arm      5_losses.parquet
    cost       what each latent's error costs, how often it fires falsely or not at all     5_costs.parquet
    diagnose   through which later parts of the model the loss comes, where it is asked for     5_diagnosis.json
    analyse    paired tests by document: how much of the gap is recovered, how sure         6_stats.json
    report     the verdict, why it is not more, every latent, on one page                   7_report

Each stage reads the artefacts before its own from a run folder and writes its own (`rewrite.stages`). The method is
Paulo & Belrose, Partially Rewriting a Transformer in Natural Language (arXiv:2501.18838, 2025).
"""

__version__ = "0.1.0"
DISTRIBUTION = "rewrite-in-words"
"""What pip installs; the name of the import is somebody else's there."""
