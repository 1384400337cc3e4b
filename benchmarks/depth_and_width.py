"""One budget of FLOPs met by channels alone, by layers alone, and by the best of both.

The Llama of `drop_layers.py`, of eight layers, trained on the bytes of a text. Each way leaves the
same share of its FLOPs, or less; the loss is measured on the last tenth of the text, which nothing
else has seen, before and after a short healing. All are given the same calibration data, and
`depth_and_width` chooses by the loss on those alone. Means over two draws of them.

    python benchmarks/depth_and_width.py --text tinyshakespeare.txt --folder /tmp/drop_layers

It needs transformers, prune-blocks and prune-oneshot, and prints the table of
`docs/guides/depth-and-width.md`.
"""

import argparse
import copy
import math
import statistics
import warnings
from pathlib import Path

import torch
from drop_layers import HEALING, batches, loss_of, network, text, train
from torch import Tensor
from transformers import LlamaForCausalLM

import prune_core

SHARES = (0.77, 0.52)
"""Just above what two and four layers of eight leave, so that all ways leave about as much."""
DRAWS = 2


def inputs_of(tokens: Tensor) -> dict[str, Tensor]:
    """What the model is run with."""
    return {"input_ids": tokens, "labels": tokens}


def channels(model: LlamaForCausalLM, share: float, calib: list[Tensor]) -> None:
    """Channels alone: what `prune` does by default."""
    x, data = inputs_of(calib[0]), [*map(inputs_of, calib)]
    target = {"flops": share}
    _, masks = prune_core.prune(model, target=target, example_inputs=x, data=data)
    prune_core.unwrap(model)
    prune_core.shrink(model, x, masks, verify=False)


def layers(model: LlamaForCausalLM, share: float, calib: list[Tensor]) -> None:
    """Layers alone, as few as leave no more than the share."""
    x, data = inputs_of(calib[0]), [*map(inputs_of, calib)]
    target = {"flops": share}
    prune_core.prune(model, "leave_one_out", target=target, example_inputs=x, data=data)


def both(model: LlamaForCausalLM, share: float, calib: list[Tensor]) -> int:
    """As many of each as lose least; returns how many layers went."""
    x, data = inputs_of(calib[0]), [*map(inputs_of, calib)]
    _, report = prune_core.prune(
        model,
        "depth_and_width",
        depth="leave_one_out",
        target={"flops": share},
        example_inputs=x,
        data=data,
    )
    return len(report.removed)


def flops(model: LlamaForCausalLM, tokens: Tensor) -> int:
    """The floating-point operations of a forward."""
    return prune_core.blocks(model, {"input_ids": tokens}).flops


def main() -> None:
    """Train the model or load it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    learned, held = text(options.text)
    if not (options.folder / "config.json").exists():
        model = network()
        train(model, learned, 1000, 2e-3, 0)
        model.save_pretrained(options.folder)
    model = LlamaForCausalLM.from_pretrained(options.folder).eval()
    whole = flops(model, held[None, :64])
    print(f"dense: {loss_of(model, held):.3f}")
    warnings.simplefilter("ignore")
    print("| FLOPs left | taken out | left | layers gone | loss | healed |")
    for share in SHARES:
        for way in (channels, layers, both):
            rows = []
            for draw in range(DRAWS):
                calib = [*batches(learned, 4, 10 + draw)]
                small = copy.deepcopy(model)
                way(small, share, calib)
                gone = len(model.model.layers) - len(small.model.layers)
                left = flops(small, held[None, :64]) / whole
                before = loss_of(small, held)
                train(small, learned, HEALING, 5e-4, 100 + draw)
                rows.append((left, gone, before, loss_of(small, held)))
            if any(math.isnan(number) for row in rows for number in row):
                raise ArithmeticError(f"{way.__name__} at {share}: not a number")
            left, gone, before, after = map(statistics.mean, zip(*rows, strict=True))
            print(
                f"| {share:.0%} | {way.__name__} | {left:.1%} | {gone:.3g} | {before:.3f} | "
                f"{after:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
