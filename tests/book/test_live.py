"""Live code in the page: a kernel that starts, runs, shows widgets, and answers exercises."""

from __future__ import annotations

import json
import re
from urllib.request import Request, urlopen

import pytest
from helpers_book import Served, Watch, chapters, go_live, open_cells, run_code, settle, status
from playwright.sync_api import BrowserContext, Page, expect

pytestmark = [pytest.mark.book, pytest.mark.browser]

EXPLORE = """
import os
from prunelab.lab import explore

def show(a, b):
    return f"{a} and {b} in process {os.getpid()}"

explore(show, a=[1, 2, 3], b={"ten": 10, "twenty": 20})
"""
EXERCISE = """
from prunelab.exercises import granularity as ex
from prunelab.exercises.granularity import counts as q1
exec(q1.%s)
ex.q1.check(counts)
"""


@pytest.fixture
def page(live_context: BrowserContext, served: Served) -> Page:
    """The first chapter, its kernel running."""
    opened = live_context.new_page()
    opened.goto(f"{served.home}{chapters()[0]}.html", wait_until="networkidle")
    settle(opened)
    go_live(opened)
    return opened


def test_a_cell_runs_and_the_page_says_where(page: Page) -> None:
    output = run_code(page, "import torch\nprint(torch.arange(3).sum().item() + 39)")
    expect(output).to_have_text("42")
    expect(page.locator(".prune-live-device")).to_contain_text("Runs on")
    expect(status(page)).to_have_text(re.compile(r"Cell \d+ finished\."))


def test_the_search_for_the_device_takes_no_button_away(live_context: BrowserContext, served: Served) -> None:
    """The kernel imports torch for it, which takes seconds: who presses Run all meanwhile must hit Run all."""
    page = live_context.new_page()
    page.goto(f"{served.home}{chapters()[0]}.html", wait_until="networkidle")
    page.evaluate(
        """() => {
            window.states = [];
            const note = () => {
                const state = document.documentElement.dataset.pruneLive;
                window.states.push(state + (window.prunelab.live.kernel.asking ? " while asking" : ""));
            };
            new MutationObserver(note).observe(document.documentElement, { attributeFilter: ["data-prune-live"] });
        }"""
    )
    go_live(page)
    assert "busy while asking" not in page.evaluate("window.states")
    run_code(page, "1 + 1")
    assert "busy" in page.evaluate("window.states")


def test_what_the_build_printed_stays_until_its_cell_is_run(live_context: BrowserContext, served: Served) -> None:
    page = live_context.new_page()
    page.goto(f"{served.home}{chapters()[0]}.html", wait_until="networkidle")
    settle(page)
    printed = page.locator("main .cell_output").count()
    assert printed
    go_live(page)
    assert page.locator("main .cell_output").count() == printed
    slider = page.get_by_role("slider").first
    slider.focus()
    before = slider.get_attribute("aria-valuenow")
    page.keyboard.press("ArrowRight")
    expect(slider).not_to_have_attribute("aria-valuenow", str(before))


def test_the_kernel_belongs_to_the_page_and_starts_in_its_folder(page: Page, served: Served) -> None:
    request = Request(f"{served.base}api/sessions", headers={"Authorization": f"token {served.token}"})
    with urlopen(request) as answer:
        paths = [session["path"] for session in json.load(answer)]
    assert f"{chapters()[0]}-live.ipynb" in paths
    folder = chapters()[0].rpartition("/")[0]
    expect(run_code(page, "import os; print(os.getcwd().replace(os.sep, '/'))")).to_contain_text(folder)


def test_an_explore_slider_calls_python(page: Page) -> None:
    output = run_code(page, EXPLORE)
    expect(output).to_contain_text("1 and 10 in process")
    sliders = output.get_by_role("slider")
    sliders.first.focus()
    page.keyboard.press("ArrowRight")
    expect(output).to_contain_text("2 and 10 in process")
    sliders.last.focus()
    page.keyboard.press("ArrowRight")
    expect(output).to_contain_text("2 and 20 in process")
    assert sliders.first.get_attribute("aria-label")


def test_an_exercise_answers(page: Page) -> None:
    expect(run_code(page, EXERCISE % "STARTER")).to_contain_text("Not attempted")
    expect(run_code(page, EXERCISE % "SOLUTION")).to_contain_text("Pass")


def test_a_wrong_answer_gets_its_own_message_and_hints(page: Page) -> None:
    wrong = run_code(page, EXERCISE % "SOLUTION" + "\ncounts['Filter'] = (8, 55)\nex.q1.check(counts)")
    expect(wrong).to_contain_text("counted the bias")
    expect(run_code(page, "ex.q1.hint()")).to_contain_text("Hint 1 of 3")
    expect(run_code(page, "ex.q1.hint()")).to_contain_text("Hint 2 of 3")


def test_formulas_pictures_progress_and_widgets_are_drawn(page: Page) -> None:
    expect(
        run_code(page, "from IPython.display import Math\nMath(r'\\sum_i w_i^2')").locator("mjx-container")
    ).to_be_visible()
    html = "from IPython.display import HTML\nHTML(r'weight \\(w_{ij}\\)')"
    expect(run_code(page, html).locator("mjx-container")).to_be_visible()
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    expect(run_code(page, plot).locator("img")).to_be_visible()
    bar = run_code(page, "from tqdm.auto import tqdm\nfor _ in tqdm(range(3), desc='pruning'): pass")
    expect(bar).to_contain_text("3/3")
    interact = "from ipywidgets import interact\ninteract(lambda n: print(n * 11), n=(1, 5))"
    moved = run_code(page, interact)
    moved.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    expect(moved).to_contain_text("44")


def test_an_error_is_shown_and_ends_a_run_of_all_cells(page: Page) -> None:
    expect(run_code(page, "1 / 0")).to_contain_text("ZeroDivisionError")
    expect(status(page)).to_have_text(re.compile(r"Cell \d+ ended with an error\."))
    page.get_by_role("button", name="Run all").click()
    expect(status(page)).to_have_text(re.compile(r"Stopped at cell \d+, which ended with an error\."), timeout=60_000)


def test_the_keyboard_is_enough(live_context: BrowserContext, served: Served) -> None:
    page = live_context.new_page()
    page.goto(f"{served.home}{chapters()[0]}.html", wait_until="networkidle")
    page.get_by_role("button", name="Run this page’s code").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".prune-live-bar")).to_have_attribute("data-state", "ready", timeout=30_000)
    cell = open_cells(page).first
    editor = cell.get_by_label("Code of cell")
    editor.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("print('typed ' * 2)")
    page.keyboard.press("Escape")
    run = cell.get_by_role("button", name="Run cell")
    expect(run).to_be_focused()
    page.keyboard.press("Enter")
    expect(cell.locator(".prune-live-output")).to_contain_text("typed typed")
    editor.focus()
    page.keyboard.press("Shift+Enter")
    expect(status(page)).to_have_text(re.compile(r"Cell \d+ finished\."))


def test_typing_indents_as_python_does(live_context: BrowserContext, served: Served) -> None:
    """Four spaces a level: by Enter after a colon, Tab and Shift+Tab, and back by one Backspace; never a tab."""
    page = live_context.new_page()
    page.goto(f"{served.home}{chapters()[0]}.html", wait_until="networkidle")
    go_live(page)
    cell = open_cells(page).first
    cell.get_by_label("Code of cell").focus()
    keys = page.keyboard
    keys.press("Control+A")
    keys.type("def add(numbers):")
    keys.press("Enter")
    keys.type("total = 0")
    keys.press("Enter")
    keys.type("for number in numbers:")
    keys.press("Enter")
    keys.type("total += number")
    keys.press("Enter")
    keys.press("Backspace")
    keys.type("return total")
    keys.press("Enter")  # what follows a return is one level further out
    keys.type("if add([1, 2]) == 3:")
    keys.press("Enter")
    for _ in range(2):
        keys.press("Shift+Tab")
    keys.press("Tab")
    keys.type("print(33]")
    keys.press("Backspace")  # behind a letter it takes that letter only
    keys.type(")")
    typed = cell.evaluate("cell => cell.querySelector('.CodeMirror').CodeMirror.getValue()")
    assert typed.splitlines() == [
        "def add(numbers):",
        "    total = 0",
        "    for number in numbers:",
        "        total += number",
        "    return total",
        "if add([1, 2]) == 3:",
        "    print(33)",
    ]
    keys.press("Control+A")
    for key in ("Tab", "Tab", "Shift+Tab"):
        keys.press(key)
    shifted = cell.evaluate("cell => cell.querySelector('.CodeMirror').CodeMirror.getValue()")
    assert shifted.splitlines() == ["    " + line for line in typed.splitlines()]


def test_nothing_leaves_the_machine_while_live(live_context: BrowserContext, served: Served) -> None:
    page = live_context.new_page()
    watch = Watch(page, served.home)
    page.goto(f"{served.home}{chapters()[0]}.html", wait_until="networkidle")
    settle(page)
    go_live(page)
    expect(run_code(page, EXPLORE)).to_contain_text("1 and 10 in process")
    watch.assert_clean()


@pytest.mark.parametrize("name", chapters())
def test_a_whole_chapter_runs_live(live_context: BrowserContext, served: Served, name: str) -> None:
    page = live_context.new_page()
    page.goto(f"{served.home}{name}.html", wait_until="networkidle")
    settle(page)
    go_live(page)
    page.get_by_role("button", name="Run all").click()
    expect(status(page)).to_contain_text("cells finished.", timeout=300_000)
    explorations = page.locator(".prune-live-output .prunelab-explore")
    assert explorations.count()
    slider = explorations.first.get_by_role("slider").first
    said = explorations.first.locator(".prunelab-status")
    before = said.inner_text()
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(said).not_to_have_text(before)
    expect(said).to_contain_text(" s)", timeout=60_000)
    expect(explorations.first.locator(".prunelab-error")).to_have_count(0)
    page.locator(".prune-live-bar").get_by_role("button", name="Stop").click()  # a kernel keeps several 100 MB
    expect(status(page)).to_contain_text("stopped")
