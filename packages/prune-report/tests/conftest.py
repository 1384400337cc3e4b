import pytest

from prune_report import (
    Change,
    Curve,
    Document,
    Experts,
    File,
    Indices,
    Latency,
    Layer,
    Loading,
    Proof,
    Quality,
    Removed,
    Stayed,
    Step,
    Timing,
    Trial,
)

HOSTILE = '<script>alert("no")</script>'
LONG = "model.decoder.layers.23.mlp.experts.63.down_projection_with_a_long_name"


def layer(name, before, after, kind="Linear"):
    return Layer(
        name,
        kind,
        Change(before * 10, after * 10),
        Change(before * 1000, after * 1000),
        Change(64, 64),
        Change(before, after),
        Indices(range(0, 2 * (before - after), 2)),
    )


@pytest.fixture
def full():
    """A document that says something about everything, with names that do their worst."""
    return Document(
        title=f"ResNet & {HOSTILE}",
        model="ResNet",
        framework="torch",
        created="2026-01-02T03:04:05+00:00",
        algorithm="l1",
        parameters=Change(11_689_512, 3_055_880),
        flops=Change(297_115_648, 79_351_808),
        bytes=Change(46_796_608, 12_242_880),
        activations=Change(524_000, 262_000),
        latency=Latency(
            Timing(0.01062, 0.0004, 9), Timing(0.00435, 0.0002, 9), "cpu, 1 thread", noisy=False
        ),
        quality=(
            Quality("accuracy", 0.9412, 0.7101, 0.7101, 0.9377, higher_is_better=True),
            Quality("perplexity", dense=12.25, small=float("inf")),
        ),
        proof=Proof(("the example", "a batch of 2"), 3.9e-7, 1e-4, inside=204, moved=0.002),
        asked=2400,
        layers=(
            *(layer(f"layer{at}.0.conv1", 64 * at, 32 * at, "Conv2d") for at in range(1, 60)),
            layer(LONG, 4096, 2048),
            layer(f"{HOSTILE}.fc", 10, 10),
        ),
        blocks=(Removed("model.layers.2", "block", 210_000, 1_000_000),),
        experts=(Experts("model.layers.0.mlp", Change(8, 6), Indices([1, 5])),),
        stayed=(
            Stayed("a layer normalisation runs over them", "constants='zero' removes them", 1311,
                   (LONG, "b", "c", HOSTILE)),
            Stayed("it is cropped by its place", "Leave them out of the config_list", 12, ("x",)),
        ),
        sensitivity=tuple(
            Curve(f"layer{at}", tuple((s / 10, 0.94 - at * s * s / 1000) for s in range(10)),
                  "accuracy")
            for at in range(11)
        ),
        schedule=tuple(
            Step(100 * at, 0.5 * (1 - (1 - at / 10) ** 3), {"loss": 2 / (at + 1)})
            for at in range(11)
        ),
        trials=tuple(
            Trial(at, None if at == 5 else 0.9 + 0.004 * (7 * at % 11), 0.5) for at in range(20)
        ),
        loading=Loading("import prune_core\n\nprune_core.load_pruned(model, 'small.safetensors')"),
        files=(File("small.safetensors", "the small model", 12_242_880),),
        notes=("read this",),
        seconds={"trace": 0.4},
        versions={"python": "3.11.7", "prune-report": "0.1.0"},
        recipe=f"model: {HOSTILE}\n",
    )  # fmt: skip


@pytest.fixture
def bare():
    """A document that says next to nothing."""
    return Document(title="Net", parameters=Change(10, 10))
