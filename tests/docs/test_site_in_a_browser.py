"""Every page of the site in a real browser, on a desk and on a phone: nothing is cut or hidden."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# What is wider than its place: the page, code, tables, pictures.
WIDER = """() => {
  const faults = [], root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) faults.push('the page is wider than the window');
  const cut = (kind, box, shown) => {
    if (box.checkVisibility() && box.scrollWidth > box.clientWidth + 1)
      faults.push(kind + ' is cut: ' + shown.innerText.slice(0, 60));
  };
  for (const code of document.querySelectorAll('article pre > code')) cut('code', code, code);
  for (const table of document.querySelectorAll('article table'))
    for (let box = table; box.tagName !== 'ARTICLE'; box = box.parentElement)
      cut('a table', box, table);
  for (const picture of document.querySelectorAll('article svg, article img')) {
    const {left, right} = picture.getBoundingClientRect();
    if (picture.checkVisibility() && (left < -1 || right > root.clientWidth + 1))
      faults.push('a picture is cut');
  }
  return faults;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material builds the site: tox run -e docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    named = os.environ.get("PRUNE_TEST_BROWSER")
    path = named or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium here: `apt install chromium`, or PRUNE_TEST_BROWSER=/path/to/it")
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=[1280, 390])
def window(browser, request):
    opened = browser.new_page(viewport={"width": request.param, "height": 844})
    yield opened
    opened.close()


def test_nothing_is_cut_on_any_page(site, window):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 50
    faults = {}
    for page in pages:
        window.goto(page.as_uri())
        if found := window.evaluate(WIDER):
            faults[str(page.relative_to(site))] = found
    assert faults == {}


def test_what_is_too_wide_is_noticed(window):
    wide = "x" * 500
    for html in (
        f"<p>{wide}</p>",
        f"<article><pre><code style='overflow: auto; display: block'>{wide}</code></pre></article>",
        f"<article><div style='overflow: auto'><table><td>{wide}</table></div></article>",
        "<article style='overflow: hidden'><svg width='3000'></svg></article>",
    ):
        window.set_content(html)
        assert window.evaluate(WIDER), html


def test_pages_lead_on_and_back(site, window):
    window.goto((site / "guides/budgets/index.html").as_uri())
    assert window.locator("a.md-footer__link--next").count() == 1
    assert window.locator("a.md-footer__link--prev").count() == 1
