"""How much memory it takes to make a checkpoint smaller that is bigger than that.

    pip install torch transformers ./packages/prune-core ./packages/prune-speedup \
        ./packages/prune-filter
    python benchmarks/bigger_than_memory.py --layers 22 --hidden 2048

A Llama with random weights in bfloat16 is written in shards, a tensor at a time. A process of its
own takes half of the hidden units of each layer out. What is counted is the memory that the process
cannot give back, the most of it at any moment (`RssAnon` of Linux); pages of mapped files come and
go as there is room. CPU seconds are those of one thread; a forward is that of the example, on the
mapped big model.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from time import process_time, sleep
from typing import Any

import torch

GIB = 2**30


def config(arguments: argparse.Namespace) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=32_000,
        hidden_size=arguments.hidden,
        intermediate_size=11 * arguments.hidden // 4 // 8 * 8,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 64,
        num_key_value_heads=arguments.hidden // 64,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )


def write(folder: Path, arguments: argparse.Namespace) -> int:
    """Write a random checkpoint, one file for every two layers; return its bytes."""
    from transformers import LlamaForCausalLM

    from prune_speedup.torch.checkpoint.shards import write_index, write_shard

    settings = config(arguments)
    with torch.device("meta"):
        model = LlamaForCausalLM(settings)
    settings.save_pretrained(folder)
    files: dict[str, list[str]] = {}
    content = {}
    for name, tensor in model.state_dict().items():
        part = name.split(".")[2] if ".layers." in name else "-1"
        file = f"model-{int(part) // 2 + 1:05}-of-{arguments.layers // 2 + 1:05}.safetensors"
        files.setdefault(file, []).append(name)
        content[name] = (torch.bfloat16, tuple(tensor.shape))

    def numbers(name: str) -> torch.Tensor:
        shape = content[name][1]
        return (
            torch.ones(shape).bfloat16()
            if len(shape) == 1
            else torch.randn(shape).mul_(0.02).bfloat16()
        )

    for file, names in files.items():
        write_shard(folder / file, {name: content[name] for name in names}, numbers)
    write_index(folder, files, content)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def memory() -> tuple[int, int]:
    """The bytes of this process that are its own, and those that are mapped files."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, files = (1024 * int(told[key].split()[0]) for key in ("RssAnon", "RssFile"))
    return own, files


def measure(source: str, out: str) -> dict[str, float]:
    """Make it smaller in this process, and look at its memory meanwhile."""
    import prune_core
    from prune_speedup.torch.checkpoint.shards import Shards
    from prune_speedup.torch.checkpoint.shrink import _opened

    torch.set_num_threads(1)
    inputs = {"input_ids": torch.arange(16)[None]}
    model = _opened(Path(source), Shards(Path(source)), None)
    forwards = []
    with torch.no_grad():
        for _ in range(2):
            start = process_time()
            model(**inputs)
            forwards.append(process_time() - start)
    del model
    before, most, done = memory()[0], 0, False

    def look() -> None:
        nonlocal most
        while not done:
            most = max(most, memory()[0])
            sleep(0.005)

    watcher = threading.Thread(target=look)
    watcher.start()
    start = process_time()
    report = prune_core.shrink_checkpoint(source, out, inputs, sparsity=0.5, round_to=8)
    seconds, done = process_time() - start, True
    watcher.join()
    return {
        "forward": min(forwards),
        "seconds": seconds,
        "own": most - before,
        "left": report.bytes[1],
        **report.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--folder", type=Path, help="where the files go; a temporary one if not")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        big, small = Path(folder, "big"), Path(folder, "small")
        big.mkdir()
        size = write(big, arguments)
        command = [sys.executable, __file__, "--one", str(big), str(small)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        layer = size / (arguments.layers + 2)
        print(f"checkpoint {size / GIB:.2f} GiB, small {found['left'] / GIB:.2f} GiB")
        print(f"a forward {found['forward']:.2f} CPU s, all {found['seconds']:.2f} CPU s")
        print(f"memory of its own {found['own'] / GIB:.2f} GiB; a layer is {layer / GIB:.3f} GiB")
        print({key: round(value, 2) for key, value in found.items()})


if __name__ == "__main__":
    main()
