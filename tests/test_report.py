"""The page about a run or a sweep, and the file that gathers a sweep."""

import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from omegaconf import OmegaConf
from processes import python
from selenium import webdriver
from test_main import SMALL, command

import mirage
from mirage.config.composition import compose_config
from mirage.reporting import collect, render
from mirage.reporting.collect import differences, table

VOID = {"meta", "input", "link", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Elements that close in order, what is written in each, and all that is fetched."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.fetched, self.rows = [], {}, [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        own = [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        self.fetched += [v for v in own if not v.startswith("#")]
        if tag not in VOID:
            self.open.append((tag, named.get("id")))
        if tag == "tr":
            inside = [i for t, i in self.open if t == "table"]
            self.rows[inside[-1]] = self.rows.get(inside[-1], 0) + 1

    def handle_startendtag(self, tag, attrs):
        own = [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        self.fetched += [v for v in own if not v.startswith("#")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open[-1][0] == tag, (self.open, tag)
            self.open.pop()

    def handle_data(self, data):
        for tag, _ in self.open:
            self.text[tag] = self.text.get(tag, "") + data


def results(shape=(2, 3, 4), failed=False):
    rng = np.random.default_rng(0)
    dims = ("loss", "alpha", "seed")
    data = {
        "cos_best": (dims, rng.random(shape)),
        "diverged": (dims, np.zeros(shape, bool)),
    }
    if failed:
        data["failed"] = (dims, np.arange(np.prod(shape)).reshape(shape) == 0)
    names = [f"loss{i}" for i in range(shape[0])]
    coords = {"loss": names, "alpha": np.arange(shape[1]) + 1.0, "seed": np.arange(shape[2])}
    return xr.Dataset(data, coords=coords)


def test_the_table_has_a_row_a_cell_with_medians_and_states():
    data = results(failed=True)
    data["diverged"][1, 2, :2] = True
    data["cos_best"][1, 2, :2] = np.nan
    columns, rows = table(data)
    assert columns == ["loss", "alpha", "seeds", "state", "cos_best"]
    assert [row["state"] for row in rows] == ["failed", *["done"] * 4, "2 diverged"]
    assert rows[4]["cos_best"] == np.median(data.cos_best[1, 1])
    assert rows[5]["cos_best"] == np.median(data.cos_best[1, 2, 2:])
    assert rows[3] | {"cos_best": 0} == {
        "loss": "loss1", "alpha": 1.0, "seeds": 4, "state": "done", "cos_best": 0
    }  # fmt: skip


def test_differences_are_those_keys_that_were_changed():
    config = compose_config(["d=300", "loss.delta=2", "alpha=[2,3]"])
    found = {key: (a, b) for key, a, b in differences(OmegaConf.to_container(config))}
    assert found["d"] == ("200", "300")
    assert found["loss.delta"] == ("1.0", "2.0")
    assert "root_seed" not in found


@pytest.mark.slow
def test_a_page_about_a_run_stands_alone_and_says_all_there_is(tmp_path):
    arguments = ["+experiment=huber_vs_mse", *SMALL, "theory=null", "hydra.run.dir=here"]
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = python("mirage.report", "here", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout == "here/report.html\n"
    text = (tmp_path / "here" / "report.html").read_text()
    page = Page(text)
    assert page.fetched == []
    assert page.rows["cells"] == 1 + 4
    assert page.text["h1"] == "huber_vs_mse"
    assert "30th-70th percentile band" in page.text["figcaption"]
    assert "huber_vs_mse" in page.text["title"]
    for words in ("algorithm.steps", "jax 0.", "finished"):
        assert words in page.text["main"] + page.text["header"]
    assert page.text["pre"].strip() == shlex.join(["python", "-m", "mirage", *arguments])
    shown = mirage.load(tmp_path / "here").cos_best.median("seed").values.ravel()
    for value in shown:
        assert f"{value:.4g}" in page.text["td"]
    other = python(
        "mirage.report", "here", "--figure", "learning_curves", "--output", "c.html", cwd=tmp_path
    )
    assert other.returncode == 0, other.stderr
    assert "figure-learning_curves" in (tmp_path / "c.html").read_text()
    nothing = python("mirage.report", "nowhere", cwd=tmp_path)
    assert (nothing.returncode, nothing.stderr) == (
        2,
        "mirage: no run in nowhere or below it\n",
    )


def test_what_comes_from_outside_is_written_as_text(tmp_path):
    """A name, a traceback or a setting cannot put anything into the page."""
    nasty = "<script>alert(1)</script>"
    data = results(failed=True).assign_attrs(experiment=nasty)
    mirage.save(data, tmp_path)
    (tmp_path / "status.json").write_text(json.dumps({"state": "failed", "error": nasty}))
    (tmp_path / "failures.txt").write_text(nasty)
    (tmp_path / "config.yaml").write_text(json.dumps({"name": nasty, "target": {"expr": nasty}}))
    text = render(collect(tmp_path))
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") >= 4
    Page(text)


def test_a_page_of_a_thousand_cells_is_below_three_megabytes(tmp_path):
    mirage.save(results((10, 100, 8)), tmp_path)
    text = render(collect(tmp_path))
    assert Page(text).rows["cells"] == 1001
    assert len(text.encode()) < 3e6


@pytest.mark.slow
def test_a_sweep_is_gathered_and_reported_also_where_a_job_failed(tmp_path):
    small = [s for s in SMALL if not s.startswith("d=")]
    jobs = ["-m", "+experiment=huber_vs_mse", *small, "theory=null", "d=20,25"]
    done = command(*jobs, "hydra.sweep.dir=jobs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    gathered = python("mirage.gather", "jobs", cwd=tmp_path)
    assert gathered.returncode == 0, gathered.stderr
    assert xr.load_dataset(tmp_path / "jobs" / "gathered.nc").sizes["d"] == 2
    page = Page(module_text(tmp_path, "jobs"))
    assert page.rows == {"runs": 3, "cells": 1 + 8, None: page.rows[None]}
    status = tmp_path / "jobs" / "1" / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "failed"}))
    (tmp_path / "jobs" / "1" / "results.nc").unlink()
    half = python("mirage.gather", "jobs", cwd=tmp_path)
    assert half.returncode == 1
    assert "1 is missing: failed" in half.stderr
    page = Page(module_text(tmp_path, "jobs"))
    assert (page.rows["runs"], page.rows["cells"]) == (3, 1 + 4)


def module_text(tmp_path, folder):
    made = python("mirage.report", folder, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    return (tmp_path / folder / "report.html").read_text()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, as Debian's packages chromium and chromium-driver install it."""
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in found:
        pytest.skip("no Chromium here: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    quiet = "disable-gpu disable-quic disable-background-networking disable-component-update"
    for flag in f"headless no-sandbox no-first-run disable-sync {quiet}".split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(found[1]))
    yield driver
    driver.quit()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_in_a_browser_figures_show_tables_sort_and_filter(browser, tmp_path, scheme, width):
    data = results((3, 12, 4)).assign_attrs(experiment="seen")
    mirage.save(data.expand_dims(d=[50]).transpose("loss", "d", "alpha", "seed"), tmp_path)
    page = tmp_path / "page.html"
    page.write_text(render(collect(tmp_path)))
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    figure = browser.find_element("css selector", "figure svg")
    assert figure.is_displayed()
    assert figure.size["width"] > 0.8 * min(width, 900)
    assert figure.size["height"] > 150
    # Nothing is cut off: what is wide scrolls inside its own box.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    ink, paper = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor];"
    )
    assert (brightness(ink) > brightness(paper)) == (scheme == "dark")
    assert abs(brightness(ink) - brightness(paper)) > 150
    heads = browser.find_elements("css selector", "#cells th button")
    at = [head.text for head in heads].index("cos_best")
    for order in (1, -1):
        heads[at].click()
        values = [float(row[at]) for row in shown(browser)]
        assert values == sorted(values, reverse=order < 0)
    field = browser.find_element("id", "filter")
    field.send_keys("loss1 12")
    assert [row[:3] for row in shown(browser)] == [["loss1", "50", "12"]]
    assert browser.find_element("id", "shown").text == "1 of 36"


def brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def shown(browser):
    """The texts of the rows of cells that are not hidden."""
    return browser.execute_script(
        "return Array.from(document.querySelectorAll('#cells tbody tr:not([hidden])'), "
        "row => Array.from(row.cells, cell => cell.textContent));"
    )
