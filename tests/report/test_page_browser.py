"""The page in a real browser, from disk and offline: it answers to clicks, keys and links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from makers.browser import Visit, visit
from makers.page_made import LATENTS
from makers.page_visits import ROWS, count_says, numbers, open_latent, open_table

from rewrite.run.files import read_json


def test_it_opens_and_says_the_verdict_first_without_any_data_file(seen: Visit) -> None:
    assert seen.page.locator("#latent").is_hidden()
    assert "gap" in seen.text(".verdict")
    assert seen.page.locator(".figures .large").count() == 3
    assert seen.run("document.querySelectorAll('script[src]').length") == 0


def test_the_table_is_read_when_a_reader_gets_near_it(seen: Visit) -> None:
    open_table(seen)
    assert numbers(seen) == [i for i in range(51) if i != 20]
    assert seen.text("#count") == f"1 to 50 of {LATENTS} latents"
    seen.page.click("#after")
    assert numbers(seen)[0] == 51
    assert seen.text("#count") == f"51 to 100 of {LATENTS} latents"
    seen.page.click("#after")
    assert numbers(seen)[-1] == 20, "what is not known stands last"
    assert seen.page.locator("#after").is_disabled()


def test_it_sorts_by_what_is_clicked_and_says_so(seen: Visit) -> None:
    open_table(seen)
    head = seen.page.locator("#all th[data-key=cost]")
    head.locator("button").click()
    assert numbers(seen)[:3] == [119, 118, 117]
    assert head.get_attribute("aria-sort") == "descending"
    assert seen.page.locator("#all [aria-sort]").count() == 1
    head.locator("button").click()
    assert numbers(seen)[:3] == [0, 1, 2]
    assert head.get_attribute("aria-sort") == "ascending"
    seen.page.click("#after")
    seen.page.click("#after")
    assert numbers(seen)[-1] == 20, "what is not known stands last, whichever way"


def test_it_searches_explanations_and_numbers(seen: Visit) -> None:
    open_table(seen)
    seen.page.keyboard.press("/")
    seen.page.keyboard.type("WORD w11")
    count_says(seen, f"1 to 10 of 10 found, of {LATENTS} latents")
    assert numbers(seen) == list(range(110, 120))
    seen.page.fill("#search", "77")
    count_says(seen, f"1 to 1 of 1 found, of {LATENTS} latents")
    seen.page.fill("#search", "<script>alert(1)")
    count_says(seen, f"1 to 1 of 1 found, of {LATENTS} latents")
    seen.page.fill("#search", "no such thing")
    count_says(seen, f"None of {LATENTS} latents")
    assert numbers(seen) == []


def test_it_filters_by_numbers_and_by_what_is_missing(seen: Visit) -> None:
    open_table(seen)
    seen.page.click("#narrowing summary")
    seen.page.fill("[data-key=simulation][data-end=low]", "0.9")
    count_says(seen, f"1 to 19 of 19 found, of {LATENTS} latents")
    seen.page.fill("[data-key=density][data-end=high]", "0.5")
    count_says(seen, f"1 to 5 of 5 found, of {LATENTS} latents")
    assert numbers(seen) == [0, 1, 2, 3, 4]
    seen.page.select_option("#lost", "some")
    count_says(seen, f"1 to 1 of 1 found, of {LATENTS} latents")
    assert numbers(seen) == [3]
    seen.page.select_option("#lost", "none")
    seen.page.fill("[data-key=cost][data-end=low]", "0.00002")
    count_says(seen, f"1 to 2 of 2 found, of {LATENTS} latents")
    assert numbers(seen) == [2, 4]
    seen.page.click("#narrowing [type=reset]")
    count_says(seen, f"1 to 50 of {LATENTS} latents")


def test_a_link_gives_the_same_view_to_another_reader(seen: Visit, browser: Any) -> None:
    open_table(seen)
    seen.page.click("#narrowing summary")
    seen.page.fill("[data-key=simulation][data-end=low]", "0.9")
    seen.page.fill("[data-key=density][data-end=high]", "0.5")
    count_says(seen, f"1 to 5 of 5 found, of {LATENTS} latents")
    seen.page.click("#all th[data-key=latent] button")
    seen.page.click("#all th[data-key=latent] button")
    found = numbers(seen)
    assert found == [4, 3, 2, 1, 0]
    seen.page.click("#link")
    seen.until("document.getElementById('linked').textContent !== ''")
    address = str(seen.run("location.hash"))
    assert "simulation.low=0.9" in address and "sort=latent" in address
    with visit(browser, seen.folder) as other:
        other.go(address)
        count_says(other, f"1 to 5 of 5 found, of {LATENTS} latents")
        assert numbers(other) == found
        assert other.page.input_value("[data-key=density][data-end=high]") == "0.5"
        other.go("#table=sort=nothing&simulation.low=x&down=")
        count_says(other, f"1 to 50 of {LATENTS} latents")


def test_keys_move_along_the_rows_and_open_one(seen: Visit) -> None:
    open_table(seen)
    focused = "Number(document.activeElement.textContent)"
    for key, expected in (("j", 0), ("j", 1), ("ArrowDown", 2), ("k", 1), ("ArrowUp", 0)):
        seen.page.keyboard.press(key)
        seen.until(f"{focused} === {expected}")
    for _ in range(49):
        seen.page.keyboard.press("j")
    seen.until(f"{focused} === 50")
    seen.page.keyboard.press("j")
    seen.until(f"{focused} === 51")
    assert seen.text("#count").startswith("51 to 100")
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_selector("#latent .windows")
    assert seen.text("#latent-title") == "Latent 51"
    seen.page.keyboard.press("j")
    seen.until("document.getElementById('latent-title').textContent === 'Latent 52'")
    seen.page.wait_for_selector("#latent [data-key=k]")
    seen.page.keyboard.press("k")
    seen.until("document.getElementById('latent-title').textContent === 'Latent 51'")
    seen.page.keyboard.press("Escape")
    seen.until(f"{focused} === 51")
    assert seen.page.locator("#latent").is_hidden()


def test_a_row_opens_its_latent_and_back_returns_to_it(seen: Visit) -> None:
    open_table(seen)
    row = seen.page.locator(ROWS).nth(30)
    row.scroll_into_view_if_needed()
    place = seen.run("scrollY")
    row.locator("td.prose").click()
    seen.page.wait_for_selector("#latent .windows")
    assert seen.page.url.endswith("#latent=31")
    assert seen.page.title().startswith("Latent 31 – ")
    assert seen.page.locator("#report").is_hidden()
    seen.page.go_back()
    seen.page.wait_for_selector(ROWS)
    assert seen.page.locator("#latent").is_hidden()
    assert abs(seen.run("scrollY") - place) < 5
    assert seen.run("document.activeElement.textContent") == "31"
    seen.page.go_forward()
    seen.page.wait_for_selector("#latent .windows")
    assert seen.text("#latent-title") == "Latent 31"


def test_a_deep_link_opens_a_latent_with_all_that_is_known_of_it(seen: Visit) -> None:
    open_latent(seen, 70)
    assert seen.text(".explanation") == "fires on the word w70, or on kings"
    scores = dict(
        zip(
            seen.page.locator(".scores dt").all_text_contents(),
            seen.page.locator(".scores dd").all_text_contents(),
            strict=True,
        )
    )
    assert scores["correlation"] == "0.640"
    assert scores["cost [nats]"] == "0.0007"
    assert scores["active"] == "7.1%"
    assert scores["cost alone [nats]"] == "–"
    assert scores["true firings"] == "200"
    assert seen.page.locator(".sketches svg[role=img]").count() == 2
    assert "Truly active at 210 positions" in (
        seen.page.locator(".sketches svg").first.get_attribute("aria-label") or ""
    )
    assert [seen.page.locator(f".windows .{kind}").count() for kind in ("false", "missed", "right", "train")] == [
        2,
        1,
        1,
        1,
    ]


def test_windows_show_both_activations_of_each_token_and_what_is_not_seen(seen: Visit) -> None:
    open_latent(seen, 70)
    window = seen.page.locator(".windows .right")
    tokens = window.locator(".token")
    words = [text.split(" (")[0] for text in tokens.all_text_contents()]
    assert words == ["The", "·king", "·of", "⏎", "····", "⇥the", "·land", "."]
    assert window.locator("br").count() == 1
    heights = window.locator(".token b").evaluate_all("all => all.map(one => one.style.getPropertyValue('--high'))")
    assert heights == ["", "", "50%", "", "", "", "100%", ""]
    heights = window.locator(".token u").evaluate_all("all => all.map(one => one.style.getPropertyValue('--high'))")
    assert heights == ["", "80%", "40%", "0.2%", "0.1%", "", "0.2%", ""]
    hatched = window.locator(".token").evaluate_all("all => all.map(one => one.querySelectorAll('.hatch').length)")
    assert hatched == [0, 0, 0, 0, 0, 1, 0, 1]
    assert tokens.nth(5).locator("u.hatch").count() == 1 and tokens.nth(7).locator("b.hatch").count() == 1
    drawn = window.locator(".token u").evaluate_all("all => all.map(one => getComputedStyle(one).visibility)")
    assert drawn == ["visible"] * 7 + ["hidden"], "where nothing was simulated nothing is drawn"
    assert "(true 0, simulated 1.6)" in (tokens.nth(1).text_content() or "")
    assert "simulated missing" in (tokens.nth(5).text_content() or "")
    output = window.locator("output")
    assert output.text_content() == "“·of” true 1, simulated 0.8"
    tokens.nth(2).focus()
    seen.page.keyboard.press("ArrowLeft")
    assert output.text_content() == "“·king” true 0, simulated 1.6"
    tokens.nth(6).hover()
    assert output.text_content() == "“·land” true 2, simulated 0.004"
    tokens.nth(4).hover()
    assert output.text_content() == "“····” true 0, simulated below 0.004", "the least that is told has no digits"
    tokens.nth(7).hover()
    assert output.text_content() == "“.” true not known, not simulated"
    assert "missing" not in (tokens.nth(7).text_content() or "")
    assert seen.page.locator(".windows .train .token u").count() == 0


@pytest.mark.parametrize("name", ["99999", "abc", "%3Cscript%3Ealert(9)%3C/script%3E", "-1", "%E0%A4%A", "1e3"])
def test_a_latent_that_is_not_there_is_said_to_be_none(seen: Visit, name: str) -> None:
    open_latent(seen, name)
    assert "There is no latent" in seen.text("#latent")
    assert seen.page.locator("#latent script").count() == 0
    seen.page.keyboard.press("Escape")
    seen.page.wait_for_selector("#report:not([hidden])")


def test_from_a_latent_the_other_parts_of_the_page_can_be_reached(seen: Visit) -> None:
    open_latent(seen, 70)
    seen.page.click("nav a[href='#why']")
    seen.page.wait_for_selector("#report:not([hidden])")
    seen.until("Math.abs(document.getElementById('why').getBoundingClientRect().top) < 60")


def test_the_theme_follows_the_system_and_the_reader_and_is_remembered(seen: Visit) -> None:
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    light = seen.run(paper)
    seen.page.emulate_media(color_scheme="dark")
    dark = seen.run(paper)
    assert dark != light
    seen.page.click("#theme")
    assert seen.run(paper) == light
    seen.go()
    assert seen.run(paper) == light
    seen.page.click("#theme")
    assert seen.run(paper) == dark


def test_without_its_data_the_page_says_what_is_amiss(browser: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes((folder / "index.html").read_bytes())
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((tmp_path / "index.html").as_uri() + "#latent=3")
    page.wait_for_selector("#latent .cautions")
    assert "data/table.js cannot be read" in (page.locator("#latent").text_content() or "")
    context.close()


def test_without_scripts_all_but_the_table_is_there(browser: Any, folder: Path) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "index.html").as_uri())
    assert page.locator("noscript").is_visible()
    assert page.locator("#filters").is_hidden() and page.locator("#theme").is_hidden()
    assert page.locator("#figure-ladder svg").first.is_visible()
    context.close()


def test_the_page_of_a_real_run_shows_its_verdict_and_its_latents(browser: Any, small_run: Path) -> None:
    stats = read_json(small_run / "6_stats.json")
    scores = {row["latent"]: row["simulation"] for row in pq.read_table(small_run / "4_scores.parquet").to_pylist()}
    with visit(browser, small_run / "7_report") as seen:
        assert seen.text(".verdict") == stats["verdict"]["sentence"]
        open_table(seen)
        shown = dict(zip(numbers(seen), seen.page.locator(f"{ROWS} td:nth-child(3)").all_text_contents(), strict=True))
        assert len(shown) == 50
        assert all(float(text) == pytest.approx(scores[latent], abs=0.00051) for latent, text in shown.items())
        for latent in list(shown)[:3]:
            open_latent(seen, latent)
            assert seen.page.locator(".windows .token").count() > 20
            assert seen.page.locator(".windows .train").count() > 0
            assert seen.page.locator(".sketches path.true").count() == 1
