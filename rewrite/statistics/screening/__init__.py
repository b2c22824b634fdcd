"""What a screen misses: counted where the truth is known, estimated where only the audit's answers say it.

1. On the test split, document by document (`measuring.py`): the pairs of a simulated position and a latent, those that
   passed, those that were asked for the audit; the true firings among them; and where the simulator says a firing (at
   least 1 on a scale of 9, half rounded up, before any calibration), truly (`hits`) or not (`false`).
2. Where the true firings are is known everywhere: the share of them that the screen held back is no estimate.
3. What the simulator would have said of the pairs held back is known on m of M documents, drawn without replacement
   (`rewrite.text.sampling.draw_full`). With y the count of such firings in a document, M/m Σy is the Horvitz-Thompson
   estimate of their number on all M (each document's chance to be drawn is m/M), unbiased whatever the screen does. Its
   standard error is M √((1 - m/M) s²/m), its interval Student's with m - 1 degrees of freedom (Cochran, Sampling
   Techniques, 3rd ed. 1977, ch. 2), kept between what was seen and what there is. It is an interval about these M
   documents, which asking about everything would tell exactly. Where the audit found none, or had one document, there
   is no spread to judge by and no interval. `missed` is the share of all of the simulator's firings that this is.
4. `loss` is what asking in full changed, on the audit's documents, nats per token: `asked_in_full` minus
   `asked_by_screen` (`rewrite.arms.audit`), with the interval of any paired difference. Above 0, the screen spared the
   model false firings worth that much; below 0, it took firings away that were worth having.
"""
