"""The Python of the guides to single kinds of models runs, and prints what the pages say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
FENCED = re.compile(r"^```py\n(.*?)^```", re.DOTALL | re.MULTILINE)
NEEDS = {"whisper": "transformers", "yolo": "ultralytics", "diffusion": "diffusers"}
# torchvision beside a CPU build of torch lacks these, and fails to import without them.
OPERATORS = """
import torch
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
"""


@pytest.mark.parametrize("page", NEEDS)
def test_the_page_runs_from_top_to_bottom(page, tmp_path):
    pytest.importorskip(NEEDS[page], reason=f"needs {NEEDS[page]}", exc_type=ImportError)
    code = "\n".join(FENCED.findall((GUIDES / f"{page}.md").read_text("utf-8")))
    done = subprocess.run(
        [sys.executable, "-c", OPERATORS + code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"^# (.*)$", code, re.MULTILINE)
    assert promised
    assert done.stdout.splitlines()[-len(promised) :] == promised
