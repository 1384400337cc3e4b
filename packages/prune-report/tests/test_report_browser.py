"""What a person sees: the page in a real browser, on a desk and on a phone, by day and by night."""

import os
import shutil

import pytest

from prune_report import page, write
from prune_report.whole_page import fragment

HOSTILE = '<script>alert("no")</script>'
BLACK, WHITE = "rgb(0, 0, 0)", "rgb(255, 255, 255)"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# Texts that lie on each other, that leave the window, and a page that is wider than the window.
LOOK = """() => {
  const wide = document.documentElement.clientWidth, faults = [], texts = [];
  if (document.documentElement.scrollWidth > wide) faults.push('the page is wider than the window');
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest('style, title') || !parent.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      if (box.width < 1) continue;
      const cut = parent.closest('.pr-scroll, pre');
      const edge = cut ? cut.getBoundingClientRect() : {left: 0, right: wide};
      const scrolls = cut && cut.scrollWidth > cut.clientWidth;
      if (!scrolls && (box.right > edge.right + 1 || box.left < edge.left - 1))
        faults.push('cut: ' + node.data);
      if (!scrolls) texts.push([node.data, box]);
    }
  }
  for (let i = 0; i < texts.length; i++)
    for (let j = i + 1; j < texts.length; j++) {
      const [a, b] = [texts[i][1], texts[j][1]];
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 1 && y > 5) faults.push('on each other: ' + texts[i][0] + ' | ' + texts[j][0]);
    }
  return faults;
}"""

# The worst contrast of any text against what is behind it.
CONTRAST = """() => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('.pr *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility())
      continue;
    if (e.closest('title, style')) continue;
    const style = getComputedStyle(e);
    const text = e.closest('svg') ? style.fill : style.color;
    const [a, b] = [light(numbers(text)), light(behind(e))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < worst[0]) worst = [contrast, e.outerHTML.slice(0, 80)];
  }
  return worst;
}"""


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


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture(params=[1280, 390])
def width(request):
    return request.param


@pytest.fixture
def look(browser, width, scheme):
    """Opens a page; whatever it asks the network for is a fault."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    asked, said = [], []

    def opened(html):
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.set_content(html)
        return tab

    yield opened
    context.close()
    assert not asked
    assert not said


@pytest.mark.parametrize("which", ["full", "bare"])
@pytest.mark.parametrize("unfolded", [False, True])
def test_nothing_is_cut_or_covered(look, which, unfolded, request):
    tab = look(page(request.getfixturevalue(which)))
    if unfolded:
        tab.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.evaluate(LOOK) == []


def test_the_headline_is_seen_without_scrolling(look, full, width):
    tab = look(page(full))
    for said in ("−73.9 %", "10.6\N{NO-BREAK SPACE}ms", "−73.3 %"):
        box = tab.get_by_text(said, exact=False).first.bounding_box()
        assert box["y"] + box["height"] < 844
    assert HOSTILE in tab.locator("h1").inner_text()
    if width == 1280:
        box = tab.locator(".pr-good").bounding_box()
        assert box["y"] + box["height"] < 844


def test_all_text_can_be_read(look, full):
    tab = look(page(full))
    contrast, where = tab.evaluate(CONTRAST)
    assert contrast >= 4.5, where


def test_pictures_fill_the_page(look, full, width):
    tab = look(page(full))
    boxes = [each.bounding_box() for each in tab.locator("svg[role=img]").all()[:150]]
    seen = [box for box in boxes if box]
    assert len(seen) > 50
    assert max(box["width"] for box in seen) > 250
    assert max(box["x"] + box["width"] for box in seen) <= width
    assert tab.locator(".pr-line").count() == 13  # 11 layers, sparsity, loss


def test_a_notebook_keeps_its_own_colours(look, full, scheme):
    # JupyterLab may be light while the system is dark.
    for ink, paper in (
        ("rgb(0, 0, 0)", "rgb(255, 255, 255)"),
        ("rgb(255, 255, 255)", "rgb(17, 17, 17)"),
    ):
        html = f"<body style='color: {ink}; background: {paper}'>{fragment(full)}</body>"
        tab = look(html)
        big = tab.locator(".pr-big").first
        assert big.evaluate("e => getComputedStyle(e).color") == ink
        assert tab.evaluate("() => getComputedStyle(document.body).backgroundColor") == paper
        assert tab.evaluate(LOOK) == []


def test_a_written_page_opens_from_its_file(browser, full, tmp_path):
    write(full, tmp_path)
    tab = browser.new_page()
    tab.goto((tmp_path / "report.html").as_uri())
    assert tab.title() == f"ResNet & {HOSTILE}, pruned"
    assert tab.evaluate("document.compatMode") == "CSS1Compat"
    assert tab.evaluate("document.documentElement.lang") == "en"
    tab.close()
