"""What becomes of pruned models in other runtimes: bytes, milliseconds, largest difference.

`python benchmarks/exports.py --results exports.jsonl` prunes ten models, writes each for every
runtime and runs it there on another input than the one it was traced with.
`--page` prints the page that the results make. It needs torchvision, timm, transformers,
ultralytics, diffusers, onnxruntime, openvino, executorch and gguf. Random weights do:
what is asked is whether the file computes what the pruned model computes.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "zoo")]

from processes import in_a_process, read  # noqa: E402

import prune_core  # noqa: E402

LM = {
    "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
    "num_attention_heads": 8, "max_position_embeddings": 128,
}  # fmt: skip


LIBRARIES = ("torch", "onnxruntime", "openvino", "executorch", "gguf", "transformers")
LIBRARIES += ("ultralytics", "diffusers", "timm", "torchvision")


# --- ten pruned models, each with an input and another one --------------------------------------


def channels(model, x, other, **how):
    """Prune channels to half of the parameters."""
    how = {"target": {"parameters": 0.5}} | how
    model, masks = prune_core.prune(model.eval(), "l1", example_inputs=x, **how)
    prune_core.unwrap(model)
    prune_core.shrink(model, x, masks)
    return model, x, other


def images(size, count=1):
    return (torch.rand(count, 3, size, size), torch.rand(count, 3, size, size))


def texts():
    return ({"input_ids": torch.randint(512, (1, 16))}, {"input_ids": torch.randint(512, (1, 16))})


def suite(name):
    from suites import suite

    return suite(name)


def resnet():
    return channels(suite("torchvision").models.resnet18(), *images(64))


def mobilenet():
    return channels(suite("torchvision").models.mobilenet_v3_small(), *images(64))


def vit():
    model = suite("timm").timm.create_model("vit_tiny_patch16_224", img_size=64)
    return channels(model, *images(64), uniform=True)


def yolo():
    model, _ = suite("ultralytics").build("yolo11")
    return channels(model, *images(64))


def unet():
    model, x = suite("diffusers").build("unet_2d")
    other = {**x, "sample": torch.randn_like(x["sample"])}
    return channels(model, x, other)


class Tagger(nn.Module):
    """A bidirectional LSTM that says something of each step."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(32, 64, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def lstm():
    return channels(Tagger(), torch.randn(1, 12, 32), torch.randn(1, 12, 32), targets="LSTM")


def bert():
    from transformers import BertConfig, BertForMaskedLM

    model = BertForMaskedLM(BertConfig(**LM, attn_implementation="eager"))
    return channels(model, *texts(), target={"parameters": 0.7}, uniform=True)


def llama(**how):
    """The hidden channels alone: transformers reads no number of heads that divides no width."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**LM, num_key_value_heads=4, use_cache=False))
    hidden = [
        f"model.layers.{layer}.mlp.{name}"
        for layer in range(4)
        for name in ("gate_proj", "up_proj")
    ]
    how |= {"target": {"parameters": 0.8}, "targets": hidden}
    return channels(model, *texts(), **how)


def llama_uniform():
    return llama(uniform=True)


def llama_by_layer():
    return llama(mode="global")


def mixtral():
    from transformers import MixtralConfig, MixtralForCausalLM

    model = MixtralForCausalLM(
        MixtralConfig(**LM, num_key_value_heads=4, num_local_experts=8, num_experts_per_tok=2)
    ).eval()
    x, other = texts()
    gone = {mixture.name: [0, 3, 5, 6] for mixture in prune_core.experts(model, x)}
    prune_core.remove_experts(model, x, gone)
    # As products of whole batches, which every runtime has.
    model.set_experts_implementation("batched_mm")
    model.config.use_cache = False
    return model, x, other


MODELS = {
    "ResNet-18": resnet,
    "MobileNetV3": mobilenet,
    "ViT": vit,
    "YOLO11n": yolo,
    "diffusion U-Net": unet,
    "LSTM": lstm,
    "BERT": bert,
    "Llama, layers alike": llama_uniform,
    "Llama, layers differ": llama_by_layer,
    "Mixtral, half of the experts": mixtral,
}


# --- runtimes -----------------------------------------------------------------------------------


def called(inputs):
    """Positional and keyword arguments."""
    return ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})


def tensors(result):
    """The floating-point tensors of what a model returns, in their order."""
    if isinstance(result, torch.Tensor):
        return [result] if result.is_floating_point() else []
    if isinstance(result, dict):
        result = list(result.values())
    return [t for each in result for t in tensors(each)] if isinstance(result, list | tuple) else []


def flat(inputs):
    args, kwargs = called(inputs)
    return [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]


class First(nn.Module):
    """The model with its first output alone, as a tensor, and its inputs by position."""

    def __init__(self, model, x):
        super().__init__()
        self.model, self.names = model, list(called(x)[1])

    def forward(self, first, second=None):
        given = [first] if second is None else [first, second]
        if self.names:
            return tensors(self.model(**dict(zip(self.names, given, strict=True))))[0]
        return tensors(self.model(*given))[0]


def run_torch(model, x, folder):
    def run(inputs):
        args, kwargs = called(inputs)
        return model(*args, **kwargs)

    return sum(t.numel() * t.element_size() for t in model.state_dict().values()), run


def run_program(model, x, folder):
    path = prune_core.export(First(model, x), folder / "model.pt2", tuple(flat(x)))
    program = torch.export.load(path).module()
    return size(path), lambda inputs: program(*flat(inputs))


def run_onnx(model, x, folder):
    import onnxruntime

    path = prune_core.export(First(model, x), folder / "model.onnx", tuple(flat(x)))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(inputs):
        given = dict(zip(names, (t.numpy() for t in flat(inputs)), strict=False))
        return torch.from_numpy(session.run(None, given)[0])

    return size(path), run


def run_openvino(model, x, folder):
    import openvino

    path = prune_core.export(First(model, x), folder / "model.xml", tuple(flat(x)))
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", exact)
    count = len(compiled.inputs)

    def run(inputs):
        given = [t.numpy() for t in flat(inputs)]
        return torch.from_numpy(compiled(given[:count])[0].copy())

    return size(path) + size(path.with_suffix(".bin")), run


def run_executorch(model, x, folder):
    from executorch.runtime import Runtime

    path = prune_core.export(First(model, x), folder / "model.pte", tuple(flat(x)))
    method = Runtime.get().load_program(path).load_method("forward")
    return size(path), lambda inputs: method.execute(flat(inputs))[0]


def run_folder(model, x, folder):
    if not hasattr(model, "save_pretrained"):
        raise NotImplementedError("no model of a library with configs")
    model.save_pretrained(folder)
    kind = type(model)
    if getattr(getattr(model, "config", None), "is_heterogeneous", False):
        again = prune_core.from_pretrained(folder)
    else:
        again = kind.from_pretrained(folder).eval()
    return sum(map(size, folder.iterdir())), run_torch(again, x, folder)[1]


def run_gguf(model, x, folder):
    from transformers import AutoModelForCausalLM

    if not hasattr(model, "lm_head"):
        raise NotImplementedError("no language model")
    path = prune_core.export(model, folder / "model.gguf")
    if getattr(model.config, "is_heterogeneous", False):
        return size(path), read_back(model, path)
    again = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf").eval()
    return size(path), run_torch(again, x, folder)[1]


def read_back(model, path):
    """The numbers of a file in the model's own forward; there is no other reader here."""
    import copy

    import gguf

    reader = gguf.GGUFReader(path)
    layers = model.config.num_hidden_layers
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DECI, layers)
    found = {t.name: torch.from_numpy(t.data.copy()) for t in reader.tensors}
    again = copy.deepcopy(model)
    for name, tensor in again.state_dict().items():
        numbers = found[names.get_name(name, try_suffixes=(".weight", ".bias"))]
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            width = again.model.layers[0].self_attn.head_dim
            turned = numbers.reshape(-1, width // 2, 2, numbers.shape[-1]).transpose(1, 2)
            numbers = turned.reshape(numbers.shape)
        tensor.copy_(numbers)
    lists = reader.fields["deci.feed_forward_length"].contents()
    assert lists == [layer.mlp.gate_proj.out_features for layer in model.model.layers]
    return run_torch(again, None, None)[1]


RUNTIMES = {
    "torch": run_torch,
    "torch.export": run_program,
    "ONNX Runtime": run_onnx,
    "OpenVINO": run_openvino,
    "ExecuTorch": run_executorch,
    "safetensors and config": run_folder,
    "GGUF": run_gguf,
}


def size(path):
    return path.stat().st_size


@torch.no_grad()
def measured(model, x, other, runtime):
    """One cell: bytes, milliseconds and the largest difference, or why there are none."""
    args, kwargs = called(other)
    expected = tensors(model(*args, **kwargs))[0]
    try:
        with tempfile.TemporaryDirectory() as folder:
            count, run = RUNTIMES[runtime](model, x, Path(folder))
            found = tensors(run(other))[0]
            apart = float((found - expected).abs().max() / expected.abs().max())
            times = []
            for _ in range(7):
                start = time.perf_counter()
                run(other)
                times.append(1000 * (time.perf_counter() - start))
    except NotImplementedError as error:
        return {"none": str(error)}
    except Exception as error:  # a cell of the table, not the end of it
        return {"refused": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
    return {"bytes": count, "ms": statistics.median(times), "difference": apart}


def cells(name):
    """All cells of a model."""
    suite("torchvision")  # defines what torchvision lacks beside a CPU build of torch
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model, x, other = MODELS[name]()
    before = {runtime: measured(model, x, other, runtime) for runtime in RUNTIMES}
    return {"cells": before, "versions": {each: version(each) for each in LIBRARIES}}


# --- the page -----------------------------------------------------------------------------------

HEAD = """\
# Pruned models in other runtimes

Pruned models, written for each runtime and run there, on another input than the one that they were
traced with. A cell has the size of what was written in kilobytes, the milliseconds of a
forward, and the largest difference to the pruned model in torch, relative to the largest number of
its output: what is below 1e-06 is rounding. A dash means that the format is not for models of this
kind.

{table}

{notes}

* **torch.export, ONNX Runtime, OpenVINO, ExecuTorch**: `prune_core.export(model, "model.pt2", x)`,
  `.onnx`, `.xml` and `.pte`. ExecuTorch runs on its portable kernels here, which are the slow ones:
  its backends are given as `partitioners=`.
* Of language models the forward without a cache is written, with `model.config.use_cache = False`,
  since OpenVINO has no form for an empty cache. Of a mixture, after
  `model.set_experts_implementation("batched_mm")`: the operator that transformers takes otherwise
  is its own.
* **safetensors and config**: `model.save_pretrained(folder)`, read by `from_pretrained` of the
  library itself, as servers do that take such a folder. Where layers differ, by
  `prune_core.from_pretrained`.
* **GGUF**: `prune_core.export(model, "model.gguf")`, read by transformers. Where layers differ, the
  file has a list of heads and hidden channels, one number for each layer, which llama.cpp reads for
  its architecture `deci`. That file was read back by the package gguf, its numbers put into the
  model; llama.cpp itself was not run.

Weights are random and inputs small: images of 64 × 64, texts of 16 tokens, one at a time. The
milliseconds are medians of seven runs on one core of a machine that was busy with other work. Take
them for a hint of the order of magnitude, and measure on the machine that counts.

Made with {versions}, by

```sh
python benchmarks/pages.py exports
```
"""


def page_of(rows):
    """The page that the last row of every model makes."""
    notes: list[str] = []
    lines = [f"| model | {' | '.join(RUNTIMES)} |", f"| --- |{' --: |' * len(RUNTIMES)}"]
    for name in (name for name in MODELS if "cells" in rows.get(name, {})):
        row = rows[name]["cells"]
        made = [shown(row.get(runtime, {}), notes) for runtime in RUNTIMES]
        lines.append(f"| {name} | {' | '.join(made)} |")
    found = {name: said for row in rows.values() for name, said in row.get("versions", {}).items()}
    versions = ", ".join(f"{name} {said.partition('+')[0]}" for name, said in found.items())
    numbered = "\n".join(f"{at + 1}. {note}" for at, note in enumerate(notes))
    said = f"Refused:\n\n{numbered}\n\nHow to:" if notes else "How to:"
    return HEAD.format(table="\n".join(lines), notes=said, versions=versions)


def shown(cell, notes):
    if "refused" in cell:
        whole = re.match(r".*\.(?=\s|$)", cell["refused"])  # sentences, of what was cut off
        said = whole[0] if whole else cell["refused"]
        if said not in notes:
            notes.append(said)
        return f"refused ({notes.index(said) + 1})"
    if "bytes" not in cell:
        return "–"
    apart = cell["difference"]
    difference = "0" if not apart else f"{apart:.0e}"
    return f"{cell['bytes'] / 1000:,.0f} kB, {cell['ms']:.1f} ms, {difference}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("exports.jsonl"))
    parser.add_argument("--page", action="store_true", help="print the page, run nothing")
    parser.add_argument("--only", default="", help="a part of a model's name; done again")
    parser.add_argument("--seconds", type=int, default=900, help="that a model may take")
    parser.add_argument("--gigabytes", type=float, default=16, help="that a model may take")
    options = parser.parse_args()
    if options.page:
        sys.stdout.write(page_of(read(options.results)))
        return
    done = read(options.results)
    for name in MODELS:
        if options.only not in name or (name in done and not options.only):
            continue
        row = {"model": name, **in_a_process(partial(cells, name), options)}
        with options.results.open("a") as lines:
            print(json.dumps(row), file=lines)
        print(name, row.get("reason", ""))
        for runtime, cell in row.get("cells", {}).items():
            print("   ", runtime, cell, flush=True)


if __name__ == "__main__":
    main()
