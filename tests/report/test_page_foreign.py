"""The page for everybody and against everybody: axe finds nothing serious; foreign text stays text and runs nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from makers.browser import DESKTOP, PHONE, Scheme, Visit, visit
from makers.page_made import HOSTILE
from makers.page_visits import ROWS, open_latent, open_table

from rewrite.display.escaping import visible


def test_hostile_explanations_are_text_in_the_table_and_on_their_pages(seen: Visit) -> None:
    open_table(seen)
    shown = seen.page.locator(f"{ROWS} td.prose").all_text_contents()
    for text, cell in zip(HOSTILE, shown, strict=False):
        assert cell.rstrip("…") and visible(text).startswith(cell.rstrip("…"))
    for latent, text in enumerate(HOSTILE):
        open_latent(seen, latent)
        assert seen.text(".explanation") == visible(text)
        assert seen.run("document.querySelectorAll('#latent script, #latent img, #latent a:not(.walk a)').length") == 0


def test_hostile_tokens_names_and_answers_are_text(seen: Visit) -> None:
    open_latent(seen, 0)
    window = seen.page.locator(".windows .false").first
    tokens = window.locator(".token > span:not(.unseen)").all_text_contents()
    assert tokens == [visible(text).replace(" ", "·") for text in HOSTILE]
    assert f"test document {visible(HOSTILE[0])}" in (window.text_content() or "")
    assert visible(HOSTILE[1]) in seen.text(".scores")
    seen.page.click("summary:has-text('whole answer')")
    assert visible(HOSTILE[1]) in seen.text(".answer")
    open_latent(seen, len(HOSTILE))
    assert seen.text(".explanation") == "It has no explanation."
    assert visible(HOSTILE[0]) in seen.text("#latent .cautions")


def test_hostile_settings_metrics_and_reasons_are_text_and_bring_no_elements(seen: Visit) -> None:
    assert seen.text("h1 span").strip() == f"of {visible(HOSTILE[0])}"
    assert visible(HOSTILE[0]) in seen.text(".cautions")
    for text in HOSTILE:
        assert visible(text).strip() in seen.text("#coder"), text
        assert visible(text).strip() in seen.text("#missing"), text
    allowed = "a, svg image"
    assert seen.run("document.querySelectorAll('img, iframe, object, embed, base, link:not([rel=icon])').length") == 0
    hrefs = seen.run(f"[...document.querySelectorAll('{allowed}')].map(one => one.getAttribute('href') ?? '')")
    assert hrefs and all(re.match(r"#|[a-z]+\.(png|svg|csv|md)$|data:image/png|$", href) for href in hrefs)
    handlers = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"
    assert seen.run(handlers) == []


def test_the_first_screen_has_the_ladder_and_the_costliest_latents(seen: Visit) -> None:
    """Without scrolling, on a screen of 1280 by 900, where no caution stands above."""
    seen.run("document.querySelectorAll('.cautions').forEach(one => one.remove())")
    seen_first = "document.querySelectorAll('#figure-ladder .picture, .taste li')"
    ends = f"[...{seen_first}].map(one => one.getBoundingClientRect().bottom)"
    assert seen.page.locator(".taste li").count() >= 1
    assert all(end <= 900 for end in seen.run(ends))


def test_the_scripts_and_the_package_show_what_is_not_seen_alike(seen: Visit) -> None:
    numbers = [*range(0x3100), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0200), 0x1F642]
    found = seen.page.evaluate("all => all.map(one => rewrite.visible(String.fromCodePoint(one)))", numbers)
    assert [text.encode("utf-16", "surrogatepass") for text in found] == [
        visible(chr(number)).encode("utf-16", "surrogatepass") for number in numbers
    ]


def test_its_policy_lets_no_foreign_script_run(browser: Any, folder: Path, tmp_path: Path) -> None:
    """Were something to get through the escaping, the browser would not run it, nor fetch for it."""
    foreign = (
        "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'><svg onload='window.hurt = 3'></svg>"
    )
    page_text = (folder / "index.html").read_text(encoding="utf-8")
    (tmp_path / "index.html").write_text(page_text.replace("</main>", f"{foreign}</main>"), encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "index.html").as_uri())
    page.evaluate("fetch('http://127.0.0.1:9/').catch(() => {})")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hurt") is None
    assert not [url for url in asked if url.startswith("http")]
    context.close()


# --- for everybody ----------------------------------------------------------------------------------------------------


def find_violations(seen: Visit) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    alike = {"exclude": [[f"{ROWS}:nth-child(n + 20)"]]}
    found = axe.Axe().run(seen.page, context=alike).response["violations"]
    return [
        f"{row['id']} ({row['impact']}): {node['target']} {node['failureSummary']}"
        for row in found
        if row["impact"] in ("serious", "critical")
        for node in row["nodes"][:3]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser: Any, folder: Path, scheme: Scheme) -> None:
    with visit(browser, folder, DESKTOP, scheme) as seen:
        open_table(seen)
        seen.run("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert find_violations(seen) == []
        open_latent(seen, 70)
        seen.run("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert find_violations(seen) == []


def test_every_figure_has_a_name_a_text_and_a_table(seen: Visit) -> None:
    figures = seen.page.locator("main figure")
    assert figures.count() >= 6
    for i in range(figures.count()):
        own = figures.nth(i)
        picture = own.locator(".picture")
        for attribute in ("aria-labelledby", "aria-describedby"):
            assert len(seen.text(f"#{picture.get_attribute(attribute)}")) > 20
        assert own.locator(".picture svg:visible").count() == 1
        assert own.locator("details :is(table, a, p)").count() >= 1
        for link in own.locator(".links a").all():
            assert (seen.folder / (link.get_attribute("href") or "")).is_file()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Any, folder: Path, scheme: Scheme) -> None:
    fits = "document.documentElement.scrollWidth <= innerWidth"
    with visit(browser, folder, PHONE, scheme) as seen:
        assert seen.run(fits)
        assert seen.page.locator("#figure-ladder .narrow").is_visible()
        assert seen.page.locator("#figure-ladder .wide").is_hidden()
        open_table(seen)
        seen.run("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert seen.run(fits)
        for latent in (0, 6, 70):
            open_latent(seen, latent)
            assert seen.run(fits)


def test_on_paper_it_is_black_on_white_with_its_tables(seen: Visit) -> None:
    seen.page.emulate_media(media="print", color_scheme="dark")
    assert seen.run("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert seen.page.locator("#theme").is_hidden()
    seen.run("dispatchEvent(new Event('beforeprint'))")
    assert seen.page.locator("#figure-ladder details table").is_visible()
    seen.run("dispatchEvent(new Event('afterprint'))")
    assert seen.run("document.querySelectorAll('details[open]').length") == 0
