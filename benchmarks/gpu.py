"""What pruning is worth on a GPU, each figure a ratio of two things measured in one run.

    python benchmarks/gpu.py --csv gpu.csv
    python benchmarks/gpu.py --device cpu --quick      # whether the script itself runs

* latency: a network at half of its FLOPs over the dense one, for a batch of 1 and of 64
* prune and shrink, with the proof, over a forward of the dense network
* step: a training step with masks over one without
* 2:4: a linear layer with two of four weights, on the sparse matrix units, over the dense layer,
  for each shape and type

Rows are added to the CSV as they come. Convolutional networks are torchvision's, BERT and Llama
transformers'; a network whose package is missing is a row that says so. Weights are random:
time does not depend on them.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prune_core
from prune_filter import NMPruner

IMAGES = {
    "ResNet-18": "resnet18",
    "ResNet-50": "resnet50",
    "MobileNetV2": "mobilenet_v2",
    "DenseNet-121": "densenet121",
    "ConvNeXt-T": "convnext_tiny",
    "EfficientNet-B0": "efficientnet_b0",
    "ViT-B/16": "vit_b_16",
}
NETWORKS = (*IMAGES, "BERT-base", "Llama, 12 layers")
SHAPES = ((3072, 768), (768, 3072), (4096, 4096), (11008, 4096), (4096, 11008))
ROWS = 2048
"""How many rows a layer is given: what eight sequences of 256 tokens are."""
TYPES = {"fp16": torch.float16, "int8": torch.int8, "fp8": torch.float8_e4m3fn}
LEFT = {"flops": 0.5}


def build(name: str, device: str, quick: bool) -> tuple[nn.Module, Callable[[int], Tensor]]:
    """Return a network, and what makes a batch for it."""
    torch.manual_seed(0)
    if name in IMAGES:
        # torchvision asks for two operators that its pure build does not bring.
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                given = "(Tensor dets, Tensor scores, float threshold) -> Tensor"
                torch.library.define(f"torchvision::{operator}", given)
        import torchvision

        pixels = 224 if name.startswith("ViT") or not quick else 64
        model = torchvision.models.get_model(IMAGES[name], weights=None)
        return model.to(device).eval(), lambda n: torch.randn(n, 3, pixels, pixels, device=device)
    import transformers

    layers = 2 if quick else 12
    if name == "BERT-base":
        config = transformers.BertConfig(num_hidden_layers=layers)
        model: nn.Module = transformers.BertForSequenceClassification(config)
    else:
        config = transformers.LlamaConfig(
            vocab_size=8000,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=layers,
            num_attention_heads=12,
            num_key_value_heads=12,
            use_cache=False,
        )
        model = transformers.LlamaForCausalLM(config)
    return model.to(device).eval(), lambda n: torch.randint(0, 8000, (n, 128), device=device)


class Clock:
    """Times two functions in turns, so that whatever else goes on hits both."""

    def __init__(self, device: str, repeat: int) -> None:
        self.gpu, self.repeat = device.startswith("cuda"), repeat

    def once(self, function: Callable[[], object]) -> float:
        if self.gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        function()
        if self.gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def ratio(self, new: Callable[[], object], old: Callable[[], object]) -> dict[str, float]:
        """Return the median of the ratios of neighbours, and both medians."""
        for _ in range(3 if self.gpu else 1):
            new(), old()
        pairs = [(self.once(new), self.once(old)) for _ in range(self.repeat)]
        return {
            "ratio": median(a / b for a, b in pairs),
            "new_ms": 1e3 * median(a for a, _ in pairs),
            "old_ms": 1e3 * median(b for _, b in pairs),
        }


def halved(model: nn.Module, example: Tensor) -> nn.Module:
    """Prune a model to half of its FLOPs and make it small."""
    model, masks = prune_core.prune(model, "l1", target=LEFT, example_inputs=example)
    return prune_core.shrink(prune_core.unwrap(model), example, masks).model


def networks(options: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """Yield the latencies, and what pruning and shrinking took."""
    for name in options.networks:
        try:
            dense, batch = build(name, options.device, options.quick)
            small, _ = build(name, options.device, options.quick)
            example = batch(1)
            with torch.no_grad():
                dense(example)
                forward = median(clock.once(partial(dense, example)) for _ in range(3))
            took = clock.once(partial(halved, small, example))
        except Exception as error:
            yield {"what": "latency", "which": name, "error": _said(error)}
            continue
        yield {
            **{"what": "prune and shrink, over a forward", "which": name},
            **{"ratio": took / forward, "new_ms": 1e3 * took, "old_ms": 1e3 * forward},
        }
        for size in (1, 4 if options.quick else 64):
            inputs = batch(size)
            with torch.no_grad():
                found = clock.ratio(partial(small, inputs), partial(dense, inputs))
            yield {"what": f"latency, batch of {size}", "which": name, **found}


def masked_step(options: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """Yield a step with masks over one without."""
    name = "ResNet-18" if options.quick else "ResNet-50"
    try:
        dense, batch = build(name, options.device, options.quick)
        masked, _ = build(name, options.device, options.quick)
        prune_core.prune(masked, "l1", sparsity=0.5)
    except Exception as error:
        yield {"what": "masked step", "which": name, "error": _said(error)}
        return
    inputs = batch(2 if options.quick else 64)
    labels = torch.randint(1000, (len(inputs),), device=options.device)

    def step_of(model: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD(model.train().parameters(), 0.01, momentum=0.9)

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

        return step

    yield {"what": "masked step", "which": name, **clock.ratio(step_of(masked), step_of(dense))}


def two_of_four(options: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """Yield a layer with two of four weights over the dense one, for each shape and type."""
    for kind, (outputs, inputs) in ((k, s) for k in TYPES for s in SHAPES):
        row = {"what": f"2:4, {kind}", "which": f"{outputs} × {inputs}"}
        if not options.device.startswith("cuda"):
            yield {**row, "error": "only a GPU has units for this"}
            continue
        try:
            yield {**row, **clock.ratio(*products(kind, outputs, inputs, options.device))}
        except Exception as error:
            yield {**row, "error": _said(error)}


def products(
    kind: str, outputs: int, inputs: int, device: str
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Return a product with a 2:4 matrix, and the same with a dense one.

    The matrix is masked by prune-filter, and the sparse product is compared with the masked one.
    """
    from torch.sparse import to_sparse_semi_structured

    layer = nn.Linear(inputs, outputs, bias=False, device=device)
    pruner = NMPruner(nn.Sequential(layer), [{"op_types": ["Linear"]}])
    model, _ = pruner.compress()
    pruner.unwrap()
    weight, x = model[0].weight.detach(), torch.randn(ROWS, inputs, device=device)
    if kind == "fp16":
        weight, x = weight.half(), x.half()
        sparse = to_sparse_semi_structured(weight)
        new, old = partial(F.linear, x, sparse), partial(F.linear, x, weight)
    elif kind == "int8":
        weight, x = ((each / each.abs().max() * 127).round().to(torch.int8) for each in (weight, x))
        packed = torch._cslt_compress(weight)
        new = partial(torch._cslt_sparse_mm, packed, x.t(), out_dtype=torch.int32)
        old = partial(torch._int_mm, weight, x.t())
    else:
        weight, x = weight.to(TYPES[kind]), x.to(TYPES[kind])
        packed, one = torch._cslt_compress(weight), torch.ones((), device=device)
        new = partial(torch._cslt_sparse_mm, packed, x.t(), out_dtype=torch.bfloat16)
        old = partial(torch._scaled_mm, weight, x.t(), one, one, out_dtype=torch.bfloat16)
    torch.testing.assert_close(new().float(), old().float(), rtol=2e-2, atol=2e-1)
    return new, old


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--quick", action="store_true", help="small inputs, few repetitions")
    parser.add_argument("--csv", type=Path, help="a file to write to")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU; --device cpu --quick tries the script on the processor")
    warnings.filterwarnings("ignore", category=UserWarning)
    clock = Clock(options.device, 2 if options.quick else options.repeat)
    card = torch.cuda.get_device_name() if options.device.startswith("cuda") else "the processor"
    columns = ("what", "which", "ratio", "new_ms", "old_ms", "error", "card", "torch")
    if options.csv:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        with options.csv.open("w", newline="") as file:
            csv.DictWriter(file, columns).writeheader()
    began = time.perf_counter()
    # What is quick and specific to a GPU comes first, in case time runs out.
    for part in (two_of_four, masked_step, networks):
        for row in part(options, clock):
            row |= {"card": card, "torch": torch.__version__}
            if options.csv:
                with options.csv.open("a", newline="") as file:
                    csv.DictWriter(file, columns).writerow(row)
            said = f"{row['ratio']:.3f}" if "ratio" in row else row["error"]
            print(f"{row['what']:34} {row['which']:18} {said}", flush=True)
            if time.perf_counter() - began > options.seconds:
                print(f"Stopped after {options.seconds:.0f} s.")
                return


if __name__ == "__main__":
    main()
