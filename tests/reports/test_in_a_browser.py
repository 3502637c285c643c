"""Reports in Chromium without a window: clicks, sliders, orders, colors, and no foreign script.

`make browser` installs what these tests need; UDA_CHROMIUM names a browser that is already there.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from adapted_folders import EVIL, IMAGES, written
from uda.commands.main import main
from uda.labels.spaces import CITYSCAPES
from uda.reports.adaptation import adapt_report
from uda.reports.comparison import grouped
from uda.reports.comparison_page import comparison_page
from uda.reports.looking import Compared, looked_at
from uda.reports.run_files import FoundRun, Run
from uda.reports.run_page import run_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: make browser")
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("UDA_CHROMIUM"),
                args=["--no-sandbox"] if os.geteuid() == 0 else [],
            )
        except api.Error as error:
            pytest.skip(f"no Chromium ({str(error).splitlines()[0]}): make browser")
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """A page of a narrow window that fails its test when anything goes wrong in it."""
    with browser.new_context(viewport={"width": 900, "height": 700}, offline=True) as context:
        page = context.new_page()
        troubles: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda line: troubles.append(line.text))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        yield page
        assert troubles == []
        assert [url for url in asked if not url.startswith(("data:", "file:"))] == []


def column(page: "Page", table: int, number: int) -> list[str]:
    read = "(table, n) => [...table.tBodies[0].rows].map(row => row.cells[n].textContent.trim())"
    found: list[str] = page.locator("table.sortable").nth(table).evaluate(read, number)
    return found


def test_an_adaptation(page: "Page", tmp_path: Path) -> None:
    page.goto(adapt_report(written(tmp_path)).as_uri())
    assert page.title() == "Adaptation of DeepLabV3+ on ResNet-50"  # and not "taken"
    assert page.get_by_text(EVIL).first.is_visible()

    # A heading sorts, first downward where it is a number, and by the keyboard, too.
    assert column(page, 2, 0) == ["road", EVIL, "sky"]
    heads = page.locator("table.sortable").nth(2).locator("th button")
    heads.nth(2).click()
    assert column(page, 2, 0) == ["road", "sky", EVIL]
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("new")
    heads.nth(2).press("Enter")
    assert column(page, 2, 0) == [EVIL, "sky", "road"]
    heads.nth(0).click()
    assert column(page, 2, 0) == [EVIL, "road", "sky"]

    # The slider, by mouse and by arrow keys.
    slider = page.locator(".slider").first
    slider.scroll_into_view_if_needed()
    assert slider.locator("img").evaluate_all("all => all.every(i => i.naturalWidth == 120)")
    box: Any = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + 20)
    handle = slider.locator("input")
    assert abs(int(handle.input_value()) - 25) <= 3
    before = int(handle.input_value())
    handle.press("ArrowRight")
    assert int(handle.input_value()) == before + 1
    assert slider.evaluate("s => s.style.getPropertyValue('--at')") == f"{before + 1}%"

    # The order of the pictures.
    names = "all => all.map(item => item.dataset.name)"
    pictures = page.locator("#list > li")
    assert pictures.evaluate_all(names) == list(IMAGES[::-1])
    page.locator("select").select_option("name")
    assert pictures.evaluate_all(names) == sorted(IMAGES)


def test_the_pictures_of_a_run_in_the_order_of_a_class(page: "Page", tmp_path: Path) -> None:
    labels = np.zeros((3, 20, 40), np.uint8)
    labels[0] = 1  # the first image has only sidewalk, and the third both
    labels[2, :10] = 1
    images = [
        Compared(name, np.zeros((20, 40, 3), np.uint8), each, np.zeros((20, 40), np.uint8),
                 np.full((20, 40), 0.5, np.float32), None)
        for name, each in zip("abc", labels, strict=True)
    ]  # fmt: skip
    looked = looked_at(images, CITYSCAPES, 3, "native", available=3)
    run = Run("r", {"step": "1"}, "native", 1, 1.0, {EVIL: 1.0}, None)
    found = FoundRun(run, tmp_path, None, {}, None)
    page.goto(run_page(found, tmp_path / "x.html", looked=looked, how_to_look="").as_uri())
    assert page.title() == "Run r"
    pictures = page.locator("#list > li")
    names = "all => all.map(item => item.dataset.name)"
    assert pictures.evaluate_all(names) == ["a", "c", "b"]  # worst first
    page.locator("select").select_option(label="worst at road first")
    assert pictures.evaluate_all(names) == ["c", "b", "a"]  # which has no road: last
    page.get_by_text("The whole confusion matrix").click()
    assert page.locator("table.matrix").is_visible()
    assert page.locator("svg[role=img]").count() == page.locator("svg[aria-label]").count()


def test_a_comparison_is_sorted_by_its_means(page: "Page", tmp_path: Path) -> None:
    found = [
        FoundRun(
            Run(f"{name}{seed}", {"preset": name, "step": "1", "seed": str(seed)}, "native on x", 1,
                miou + seed, {EVIL: miou}, None),
            tmp_path, None, {"train": {"seed": seed}}, None,
        )
        for name, miou in (("nine", 9.0), (EVIL, 41.0), ("ten", 10.0))
        for seed in (0, 1)
    ]  # fmt: skip
    page.goto(comparison_page(grouped(found), tmp_path / "x.html", command=EVIL).as_uri())
    assert page.title() == "Comparison of 3 methods"
    page.locator("table.sortable").first.get_by_role("button", name="last").click()
    assert column(page, 0, 0) == [EVIL, "ten", "nine"]  # 41.50 ± 0.71 and so on, as numbers
    assert page.get_by_text("Not known: ").is_visible()


def test_labels_of_a_data_set_under_a_handle(page: "Page", toy_root: Path, tmp_path: Path) -> None:
    arguments = ["--data-root", str(toy_root), "--output", str(tmp_path / "x.html"), "--images",
                 "2", "--workers", "1", "--cache", str(tmp_path / "cache.json")]  # fmt: skip
    assert main(["data", "report", "gta5", *arguments]) == 0
    page.goto((tmp_path / "x.html").as_uri())
    sliders = page.locator(".slider")
    assert sliders.count() == 2
    sizes = "all => new Set(all.map(i => i.naturalWidth / i.naturalHeight)).size"
    assert sliders.locator("img").evaluate_all(sizes) == 1  # photograph and labels fit
    page.locator("select").select_option(label="most sky first")
    page.get_by_text("Colors", exact=True).click()
    assert page.get_by_text("bicycle").last.is_visible()


def test_a_finger_moves_the_slider(browser: "Browser", tmp_path: Path) -> None:
    with browser.new_context(has_touch=True, viewport={"width": 400, "height": 700}) as context:
        page = context.new_page()
        page.goto(adapt_report(written(tmp_path)).as_uri())
        slider = page.locator(".slider").first
        slider.scroll_into_view_if_needed()
        box: Any = slider.bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] * 0.8, box["y"] + 20)
        assert abs(int(slider.locator("input").input_value()) - 80) <= 4
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_light_and_dark(page: "Page", tmp_path: Path) -> None:
    page.goto(adapt_report(written(tmp_path)).as_uri())
    lightness = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g)[0] * 1"
    assert page.evaluate(lightness) > 200
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(lightness) < 60
