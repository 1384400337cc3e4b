"""How much memory it takes to make a checkpoint smaller that is bigger than that.

    pip install torch transformers ./packages/prune-core ./packages/prune-speedup \
        ./packages/prune-filter
    python benchmarks/bigger_than_memory.py --layers 22 --hidden 2048
    python benchmarks/bigger_than_memory.py --layers 28 --hidden 2048 --experts 64

A Llama with random weights in bfloat16 is written in shards, a tensor at a time. A process of its
own takes half of the hidden units and heads of each layer out. With `--experts` it is a Qwen3-MoE
instead, each expert in tensors of its own, and half of the experts of each layer go. Of an expert
every eighth row is random and the others are zero, so that the files take less room where the disk
leaves out zeros.

What is counted is the memory that the process cannot give back, the most of it at any moment
(`RssAnon` of Linux); pages of mapped files come and go as there is room. CPU seconds are those of
one thread; a forward is that of the example, on the mapped big model.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from math import prod
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

import torch

GIB = 2**30


def config(arguments: argparse.Namespace) -> Any:
    from transformers import LlamaConfig, Qwen3MoeConfig

    hidden = arguments.hidden
    shared = {
        "vocab_size": 32_000,
        "hidden_size": hidden,
        "intermediate_size": 11 * hidden // 4 // 8 * 8,
        "num_hidden_layers": arguments.layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,
        "dtype": "bfloat16",
    }
    if not arguments.experts:
        return LlamaConfig(architectures=["LlamaForCausalLM"], **shared)
    return Qwen3MoeConfig(
        architectures=["Qwen3MoeForCausalLM"],
        head_dim=64,
        num_experts=arguments.experts,
        num_experts_per_tok=min(8, arguments.experts // 4),
        moe_intermediate_size=11 * hidden // 16 // 8 * 8,
        **shared,
    )


def write(folder: Path, arguments: argparse.Namespace) -> int:
    """Write a random checkpoint, one file for every two layers; return its bytes."""
    from transformers import AutoModelForCausalLM
    from transformers.core_model_loading import revert_weight_conversion

    from prune_speedup.torch.checkpoint.shards import write_index

    settings = config(arguments)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16)
    settings.save_pretrained(folder)
    files: dict[str, list[str]] = {}
    content = {}
    for name, tensor in revert_weight_conversion(model, model.state_dict()).items():
        part = name.split(".")[2] if ".layers." in name else "-1"
        file = f"model-{int(part) // 2 + 1:05}-of-{arguments.layers // 2 + 1:05}.safetensors"
        files.setdefault(file, []).append(name)
        content[name] = (torch.bfloat16, tuple(tensor.shape))
    for file, names in files.items():
        write_file(folder / file, {name: content[name] for name in names})
    write_index(folder, files, content)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def write_file(path: Path, content: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
    """Write random tensors into a safetensors file, and leave holes where experts are zero."""
    header, end = {}, 0
    for name, (_, shape) in content.items():
        start, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (_, shape) in content.items():
            rows = shape[0] // 8 if ".experts." in name else shape[0]
            numbers = torch.randn(rows, *shape[1:]).mul_(0.02 if len(shape) > 1 else 0.0)
            numbers += 1.0 if len(shape) == 1 else 0.0
            file.write(numbers.bfloat16().view(torch.uint8).numpy().data)
            file.seek(2 * prod(shape[1:]) * (shape[0] - rows), 1)
        file.truncate()


def memory() -> tuple[int, int]:
    """The bytes of this process that are its own, and those that are mapped files."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, files = (1024 * int(told[key].split()[0]) for key in ("RssAnon", "RssFile"))
    return own, files


def measure(source: str, out: str, experts: int) -> dict[str, float]:
    """Make it smaller in this process, and look at its memory meanwhile."""
    import prune_core

    torch.set_num_threads(1)
    inputs = {"input_ids": torch.arange(16)[None]}
    before, most, done = memory()[0], 0, False

    def look() -> None:
        nonlocal most
        while not done:
            most = max(most, memory()[0])
            sleep(0.005)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    start = process_time()
    wall = perf_counter()
    half: Any = {"sparsity": 0.5, "round_to": 8}
    if experts:
        layers = json.loads(Path(source, "config.json").read_text())["num_hidden_layers"]
        half = {"experts": {f"model.layers.{at}.mlp": range(0, experts, 2) for at in range(layers)}}
    report = prune_core.shrink_checkpoint(source, out, inputs, **half)
    seconds, wall, done = process_time() - start, perf_counter() - wall, True
    watcher.join()
    forwards = []
    with torch.no_grad():
        for _ in range(2):
            start = process_time()
            report.model(**inputs)
            forwards.append(process_time() - start)
    return {
        "forward": min(forwards),
        "seconds": seconds,
        "wall": wall,
        "own": most - before,
        "left": report.bytes[1],
        **report.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--experts", type=int, default=0, help="of each layer")
    parser.add_argument("--folder", type=Path, help="where the files go; a temporary one if not")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        source, out, experts = arguments.one
        print(json.dumps(measure(source, out, int(experts))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        big, small = Path(folder, "big"), Path(folder, "small")
        big.mkdir()
        size = write(big, arguments)
        command = [sys.executable, __file__, "--one", str(big), str(small)]
        command.append(str(arguments.experts))
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        layer = size / (arguments.layers + 2)
        print(f"checkpoint {size / GIB:.2f} GiB, small {found['left'] / GIB:.2f} GiB")
        print(f"a forward of the small one {found['forward']:.2f} CPU s")
        print(f"all {found['seconds']:.2f} CPU s, {found['wall']:.2f} s by the clock")
        print(f"memory of its own {found['own'] / GIB:.2f} GiB; a layer is {layer / GIB:.3f} GiB")
        print({key: round(value, 2) for key, value in found.items()})


if __name__ == "__main__":
    main()
