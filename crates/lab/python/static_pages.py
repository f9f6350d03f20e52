"""Visits the pages that need no network, slides and site, in a browser that has none.

Slides: paged forward and back by keyboard, every one of them, with letters that are large enough for the last row;
explorers follow a finger. Site: every page, its search, its explorers. Both: every picture has alternative
text, nothing is fetched, and axe-core (Deque's checker of accessibility, contrast among it) finds nothing.
"""

import re
from pathlib import Path
from urllib.parse import unquote, urlparse

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

import site_pages
import slides

# A slide's text is 1/27 of its height and shrinks at most to 1/42. From the last row of a room six times as deep as
# the picture is high, that is as large as newsprint in the hand.
SMALLEST = 0.65


class Failed(Exception):
    """What a page did not show, in one sentence."""


def check_accessible(page: Page, what: str, context=None) -> None:
    """What axe-core finds is an error; `context` narrows it to a part of the page."""
    found = Axe().run(page, context=context).response["violations"]
    if found:
        words = [f"{v['id']} ({v['impact']}): {v['nodes'][0]['html'][:150]} {v['nodes'][0]['failureSummary'][:300]}" for v in found]
        raise Failed(f"{what}: axe-core finds\n" + "\n".join(words))


def check_alternatives(page: Page, what: str) -> int:
    """Every picture has alternative text; returns how many there are."""
    alternatives = page.eval_on_selector_all("img", "all => all.map(i => i.alt.trim())")
    if not all(alternatives):
        raise Failed(f"{what}: {alternatives.count('')} of {len(alternatives)} pictures have no alternative text")
    return len(alternatives)


def check_links(page: Page, what: str) -> None:
    """Every link to a neighbour leads to a file that is there."""
    links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    files = {unquote(urlparse(link).path) for link in links if link.startswith("file:")}
    if missing := sorted(file for file in files if not Path(file).exists()):
        raise Failed(f"{what}: links lead nowhere: {missing}")


def tap_explorers(page: Page, explorers, what: str) -> int:
    """A finger on each slider that is in view: a picture must change."""
    shown = "e => [...e.querySelectorAll('img')].map(i => i.src + i.style.clipPath).join()"
    for explorer in explorers.all():
        for slider in explorer.locator("input[type=range]").all():
            slider.scroll_into_view_if_needed(timeout=5_000)
            seen, box = {explorer.evaluate(shown)}, slider.bounding_box()
            for share in (0.8, 0.3):
                page.touchscreen.tap(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
                page.wait_for_timeout(150)
                seen.add(explorer.evaluate(shown))
            if len(seen) == 1:
                raise Failed(f"{what}: no picture follows the finger")
    return explorers.count()


def open_page(browser: Browser):
    """A page without a network, on a screen that can be touched; and what went wrong in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, offline=True, has_touch=True)
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(f"asks for {request.url[:100]}") if request.url.startswith("http") else None)
    return page, problems


def turn(page: Page, key: str, how_many: int, what: str) -> list:
    """Turns the pages by a key; the numbers of the slides that were seen, and their scales."""
    seen = []
    for at in range(how_many):
        seen.append((page.evaluate("Reveal.getSlidePastCount()"), float(page.evaluate("Reveal.getCurrentSlide().dataset.scale") or 0)))
        if at + 1 < how_many:
            page.keyboard.press(key)
            page.wait_for_function("at => Reveal.getSlidePastCount() !== at", arg=seen[-1][0], timeout=5_000)
    if len({number for number, _ in seen}) != how_many:
        raise Failed(f"{what}: {key} showed {len({number for number, _ in seen})} of {how_many} slides")
    return seen


def visit_slides(browser: Browser, folder: Path, out: Path) -> None:
    """Makes slides of all notebooks and goes through them."""
    out = out / "slides"
    page, problems = open_page(browser)
    pages = touched = 0
    paths = slides.make(folder, out)
    for path in paths:
        target = out / f"{path.stem}.html"
        page.goto(target.as_uri())
        page.wait_for_function("window.Reveal && Reveal.isReady()")
        total = page.evaluate("Reveal.getTotalSlides()")
        seen = turn(page, "ArrowRight", total, path.stem)
        page.screenshot(path=out / f"{path.stem}-last.png")
        small = [(number + 1, scale) for number, scale in seen if scale < SMALLEST]
        if small:
            raise Failed(f"{path.stem}: the letters of these slides are too small (slide, scale): {small}; divide their cells into more slides")
        turn(page, "ArrowLeft", total, path.stem)
        check_alternatives(page, path.stem)
        check_links(page, path.stem)
        check_accessible(page, path.stem)
        for number in page.evaluate("Reveal.getSlides().flatMap((s, i) => s.querySelector('.explorer input[type=range]') ? [i] : [])"):
            page.evaluate("at => Reveal.slide(at)", number)
            page.wait_for_timeout(150)
            touched += tap_explorers(page, page.locator("section.present .explorer:has(input[type=range])"), path.stem)
            page.screenshot(path=out / f"{path.stem}-{number + 1}.png")
        pages += total
    if problems:
        raise Failed(f"slides: {problems}")
    print(f"  {pages} slides without a network: forward and back, readable, accessible; {touched} explorers followed a finger", flush=True)
    page.context.close()


def visit_site(browser: Browser, folder: Path, out: Path) -> None:
    """Makes the site and looks at every page."""
    out = out / "site"
    site_pages.make(folder, out)
    page, problems = open_page(browser)
    pictures = 0
    paths = sorted(out.glob("*.html"))
    for path in paths:
        page.goto(path.as_uri())
        pictures += check_alternatives(page, path.name)
        check_links(page, path.name)
        check_accessible(page, path.name)
    page.goto((out / "04_denoise.html").as_uri())
    tap_explorers(page, page.locator(".explorer:has(input[type=range])"), "04_denoise.html")
    page.fill(".site input", "median")
    if not re.fullmatch(r"[1-9]\d* found", page.inner_text(".site output")):
        raise Failed(f"04_denoise.html: the search for `median` says {page.inner_text('.site output')!r}")
    page.screenshot(path=out / "search.png")
    if problems:
        raise Failed(f"site: {problems}")
    print(f"  {len(paths)} pages of the site without a network: {pictures} pictures, accessible, searched, moved by a finger", flush=True)
    page.context.close()
