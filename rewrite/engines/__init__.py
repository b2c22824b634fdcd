"""Where language models run, a backend each; what they share: prompts, ids, the cache and the ledger of calls."""
