"""The dashboard in a real browser: headless Chromium, served and from disk."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from prunebench.dashboard.export import export
from prunebench.dashboard.serve import listen, make_app
from prunebench.dashboard.store import Store
from prunebench.sweep_record import MemberRecord, SweepFolder, SweepRecord
from tests.dashboard_runs import HOSTILE, HOSTILE_NAME, make_run

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
VIEWS = ("scores", "curves", "layers", "examples", "differences", "runs", "sweeps")
PATIENCE = 20_000  # milliseconds, on a loaded machine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = (
        os.environ.get("PRUNEBENCH_CHROMIUM"),
        *map(shutil.which, ("chromium", "google-chrome", "chromium-browser")),
    )
    executable = next((path for path in found if path), None)
    if executable is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: CI must run the dashboard's tests (apt-get install chromium)")
        pytest.skip("no Chromium: apt-get install chromium, or name one in PRUNEBENCH_CHROMIUM")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=executable, args=FLAGS)


class Site:
    """Runs, some of them hostile, and the two ways in which they are shown."""

    def __init__(self, folder: Path) -> None:
        self.outputs = folder / "outputs"
        self.runs = {
            (name, sparsity, seed): make_run(self.outputs, name, sparsity=sparsity, seed=seed, score=score, said=said)
            for name, sparsity, seed, score, said in (
                ("gentle", 0.5, 1, 0.88, "pppp"), ("gentle", 0.5, 2, 0.86, "pppp"), ("gentle", 0.9, 1, 0.80, "ppnn"),
                ("gentle", 0.9, 2, 0.78, "ppnp"), ("blunt", 0.9, 1, 0.60, "pnnp"), ("dense", 0.0, 1, 0.90, "pppp"),
            )
        }  # fmt: skip
        self.hostile = make_run(self.outputs, HOSTILE_NAME, said="nnpp", score=0.7)
        make_run(self.outputs, "broken", status="failed", reason=HOSTILE)
        self._sweep()
        self.store = Store(self.outputs, scan=0.0)
        self.report = folder / "report.html"
        export(self.store, self.report)
        listener = listen("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        self.server = uvicorn.Server(uvicorn.Config(make_app(self.store, "127.0.0.1", None), log_level="error"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.thread.start()

    def _sweep(self) -> None:
        folder = SweepFolder(self.outputs / ".sweeps" / "20260101-000000")
        folder.root.mkdir(parents=True)
        members = [MemberRecord("sparsity=0.9", [], self.runs["gentle", 0.9, 1], "finished"),
                   MemberRecord(HOSTILE, [], None, "failed", HOSTILE)]  # fmt: skip
        folder.write(SweepRecord(folder.root.name, ["run", "-m", HOSTILE], "2026-01-01T00:00:00Z", "failed", members))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("dashboard"))
    yield made
    made.server.should_exit = True
    made.thread.join()


@pytest.fixture(params=["served", "exported"])
def address(site: Site, request: pytest.FixtureRequest) -> str:
    return site.address if request.param == "served" else site.report.as_uri()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which any complaint of the browser, and any request to elsewhere, is a failure."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: complaints.append(request.url) if _is_elsewhere(request.url) else None)
    yield page
    assert page.evaluate("window.hacked") is None
    page.close()
    assert complaints == []


def _is_elsewhere(url: str) -> bool:
    return not url.startswith(("file://", "http://127.0.0.1:", "data:", "about:"))


def visit(page: Page, address: str, view: str, **state: str) -> None:
    from urllib.parse import urlencode

    page.goto("about:blank")
    page.goto(f"{address}#{urlencode({'view': view, **state})}")
    page.wait_for_selector("main h1, main .empty:not(:has-text('Reading'))")


def is_drawn(page: Page) -> bool:
    """Whether every canvas has something on it."""
    return bool(
        page.evaluate("""() => [...document.querySelectorAll("main canvas")].every((canvas) => {
        const small = new OffscreenCanvas(80, 40).getContext("2d");
        small.drawImage(canvas, 0, 0, 80, 40);
        return small.getImageData(0, 0, 80, 40).data.some((value) => value > 0);
    }) && document.querySelector("main canvas") !== null""")
    )


def texts(page: Page, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def option(page: Page, chart: str) -> Any:
    """What the chart library was given."""
    return page.evaluate("name => charts.get(name).chart.getOption()", chart)


def test_every_view_opens_in_both_colours_and_at_a_phones_width(page: Page, site: Site, address: str) -> None:
    """And runs with hostile names, settings, reasons and texts are among what is shown."""
    for view in VIEWS:
        visit(page, address, view)
        if view in ("scores", "curves", "layers"):
            assert is_drawn(page), view
    visit(page, address, "run", run=site.hostile)
    expect(page.locator("h1")).to_contain_text(HOSTILE_NAME)
    page.set_viewport_size({"width": 360, "height": 740})
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    for view in VIEWS:
        visit(page, address, view)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view


def test_hostile_texts_are_shown_as_they_are(page: Page, site: Site, address: str) -> None:
    visit(page, address, "examples", a=site.hostile, b=site.runs["blunt", 0.9, 1])
    expect(page.locator(".example .text").first).to_have_text(f"{HOSTILE} 0")
    visit(page, address, "sweeps")
    expect(page.locator("main")).to_contain_text(f"failed: {HOSTILE}")
    visit(page, address, "scores")
    page.hover("main canvas", position={"x": 600, "y": 200})
    charts = option(page, "scores")
    assert HOSTILE_NAME in [series.get("name") for series in charts["series"]]
    tip = page.evaluate(
        "text => { const node = tip(text, text); document.body.append(node); return node.innerHTML; }", HOSTILE
    )
    assert "<img" not in tip
    assert page.locator("img").count() == 0


def test_scores_have_means_dense_and_the_pareto_front(page: Page, site: Site, address: str) -> None:
    visit(page, address, "scores")
    rows = [row.split("\t") for row in texts(page, "main tbody tr")]
    by_score = [[cell.strip() for cell in row] for row in rows]
    assert [row[0] for row in by_score] == ["gentle", "gentle", HOSTILE_NAME, "blunt"]
    assert by_score[0][1:5] == ["50 %", "50.00 %", "2", "0.8700 ± 0.0141"]
    assert ["on the front" in row for row in by_score] == [True, True, False, False]
    series = {one.get("name"): one for one in option(page, "scores")["series"] if one["type"] == "line"}
    assert series["gentle"]["data"][1]["value"] == pytest.approx([0.9, 0.79])
    assert [point[0] for point in series["Pareto front"]["data"]] == [0.5, 0.9]
    assert series["dense"]["markLine"]["data"][0]["yAxis"] == 0.9
    page.click("#share-model")
    expect(page).to_have_url(re.compile("share=model"))
    page.wait_for_function("charts.get('scores').chart.getOption().xAxis[0].max < 0.6")
    page.click("button[id^='chip-blunt']")
    page.wait_for_function("document.querySelectorAll('main tbody tr').length === 3")
    page.reload()  # the view is in the address
    page.wait_for_selector("main h1")
    assert page.get_attribute("#share-model", "aria-pressed") == "true" and len(texts(page, "main tbody tr")) == 3


def test_points_and_lines_lead_to_their_runs(page: Page, site: Site, address: str) -> None:
    visit(page, address, "scores")
    place = page.evaluate("charts.get('scores').chart.convertToPixel({ gridIndex: 0 }, [0.9, 0.6])")  # blunt: one run
    page.locator("main canvas").click(position={"x": place[0], "y": place[1]})
    expect(page.locator("h1")).to_contain_text("blunt")
    page.go_back()
    page.locator("main tbody a").first.click()
    expect(page.locator("main tbody tr")).to_have_count(2)
    assert all("gentle" in row and "50.00 %" in row for row in texts(page, "main tbody tr"))


def test_the_table_filters_sorts_and_chooses(page: Page, site: Site, address: str) -> None:
    visit(page, address, "runs")
    expect(page.locator("main tbody tr")).to_have_count(8)
    page.fill("#words", "gentle sparsity>=0.9")
    expect(page.locator("main tbody tr")).to_have_count(2)
    page.fill("#words", "status=failed")
    expect(page.locator("main tbody tr")).to_have_count(1)
    page.fill("#words", "-gentle trainer.lr<0.01 score>0")
    expect(page.locator("main tbody tr")).to_have_count(3)
    page.fill("#words", "nonsense=1")
    expect(page.locator("#count")).to_have_text("no setting “nonsense”")
    page.fill("#words", "score>0")
    page.click("#sort-score")
    assert page.get_attribute("th:has(#sort-score)", "aria-sort") == "ascending"
    assert texts(page, "main tbody tr td:nth-child(8)")[:2] == ["0.6000", "0.7000"]
    page.focus("#sort-score")
    page.keyboard.press("Enter")  # by keyboard, and the focus stays
    expect(page.locator("main tbody tr td:nth-child(8)").first).to_have_text("0.9000")
    assert page.evaluate("document.activeElement.id") == "sort-score"
    for name in (("gentle", 0.9, 1), ("blunt", 0.9, 1)):
        page.check(f"[id='choose-{site.runs[name]}']")
    page.click("main a:has-text('differences')")
    expect(page.locator("h1")).to_have_text("What distinguishes two runs")
    shown = texts(page, "main tbody tr")
    assert [row.split("\t")[0].strip() for row in shown if "gentle" in row] == ["name", "recipe"]


def test_curves_have_prunings_and_rewinds(page: Page, site: Site, address: str) -> None:
    visit(page, address, "curves", select=site.runs["gentle", 0.9, 1])
    series = {one["id"].split("|")[0]: one for one in option(page, "curves")["series"]}
    assert [point["value"][0] for point in series["prunings"]["data"]] == [10, 20]
    assert [point["value"][0] for point in series["rewinds"]["data"]] == [20]
    assert [line["xAxis"] for line in series["0"]["markLine"]["data"]] == [10, 20, 20]
    assert len(series["0"]["data"]) == 40
    page.select_option("#choose-series", "eval/accuracy")
    page.wait_for_function("charts.get('curves').chart.getOption().series[0].data.length === 1")
    page.click("main .chips a")
    expect(page.locator("h1")).to_contain_text("gentle")


def test_layers_of_one_run_over_time_and_of_two(page: Page, site: Site, address: str) -> None:
    a, b = site.runs["gentle", 0.9, 1], site.runs["gentle", 0.5, 1]
    visit(page, address, "layers", a=a, b=b)
    cells = option(page, "layers")["series"][0]["data"]
    assert len(cells) == 4 and {cell["value"][2] for cell in cells} == {0.9}
    page.locator("#moment").fill("0")
    page.wait_for_function("charts.get('layers').chart.getOption().series[0].data[0].value[2] === 0.45")
    page.click("#mode-time")
    page.wait_for_function("charts.get('layers').chart.getOption().xAxis[0].data.length === 2")
    page.click("#mode-change")
    page.wait_for_selector("text=Zeros of A minus zeros of B")
    changes = option(page, "layers")["series"][0]["data"]
    assert [cell["value"][2] for cell in changes] == pytest.approx([0.4] * 4)


def test_disagreements_are_counted_and_listed(page: Page, site: Site, address: str) -> None:
    visit(page, address, "examples", a=site.runs["gentle", 0.9, 1], b=site.runs["blunt", 0.9, 1])  # ppnn against pnnp
    assert texts(page, ".counts b") == ["2", "1", "1", "1", "4"]
    assert texts(page, ".example .quiet") == ["validation 1", "validation 3"]
    page.click("#kind-wrong")
    expect(page.locator(".example")).to_have_count(1)
    assert f"{HOSTILE} 2" in page.inner_text(".example") and page.locator(".example .wrong").count() == 2


def test_the_page_follows_runs_and_keeps_what_one_is_at(page: Page, site: Site) -> None:
    visit(page, site.address, "runs", where="late")
    expect(page.locator("main")).to_contain_text("No run fits")
    page.focus("#words")
    make_run(site.outputs, "late", seed=7)
    expect(page.locator("main tbody tr")).to_have_count(1)
    assert page.evaluate("document.activeElement.id") == "words"
    expect(page.locator("#live")).to_have_text("live")


def test_by_keyboard_alone(page: Page, site: Site, address: str) -> None:
    visit(page, address, "scores")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.focus("#view-runs")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Runs")
    assert page.evaluate("document.activeElement.id") == "view-runs"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_an_empty_folder_tells_what_to_do(page: Page, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    export(Store(tmp_path / "outputs"), tmp_path / "empty.html")
    for view in ("scores", "curves", "layers", "examples", "differences", "runs"):
        visit(page, (tmp_path / "empty.html").as_uri(), view)
        expect(page.locator("main")).to_contain_text("prunebench run recipe=quickstart")


def test_another_sites_page_reads_nothing(browser: Browser, site: Site) -> None:
    """A page of another origin, which runs in the user's browser, gets no answer from the server."""
    page = browser.new_page()
    page.route("http://evil.example/", lambda route: route.fulfill(body="<p>evil</p>", content_type="text/html"))
    page.goto("http://evil.example/")
    ask = "address => fetch(address).then(answer => answer.text(), () => 'refused')"
    assert page.evaluate(ask, f"{site.address}api/runs") == "refused"
    frame = "address => new Promise(done => { const f = document.createElement('iframe'); f.src = address; f.onload = () => done(f.contentDocument === null); document.body.append(f); })"  # noqa: E501  # fmt: skip
    assert page.evaluate(frame, site.address) is True
    page.close()
