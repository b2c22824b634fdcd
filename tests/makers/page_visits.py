"""Ways about a report's page, for the tests that drive it in a browser."""

from __future__ import annotations

import json

from makers.browser import Visit

ROWS = "#all tbody tr"


def open_table(seen: Visit) -> None:
    seen.page.locator("#latents").scroll_into_view_if_needed()
    seen.page.wait_for_selector(ROWS)
    seen.until("document.querySelector('#all tbody td.prose').textContent !== '…'")


def numbers(seen: Visit) -> list[int]:
    """The latents whose rows are shown."""
    return [int(text) for text in seen.page.locator(f"{ROWS} a").all_text_contents()]


def open_latent(seen: Visit, latent: int | str) -> None:
    seen.go(f"#latent={latent}")
    seen.page.wait_for_selector("#latent .walk")


def count_says(seen: Visit, text: str) -> None:
    seen.until(f"document.getElementById('count').textContent === {json.dumps(text)}")
