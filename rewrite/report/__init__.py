"""A finished run → what a reader sees: facts, then the page, the Markdown, the figures, the latents' files."""
