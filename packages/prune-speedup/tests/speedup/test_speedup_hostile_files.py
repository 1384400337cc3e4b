"""Files that are damaged or made to do harm: refused by name, and the model is left as it was."""

import copy
import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from prune_core import SpeedupError, load_pruned, save_pruned, shrink, units
from prune_core.masking import PrunerModuleWrapper


class Net(nn.Module):
    """Attributes, corrections, a folded bias, ties, a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.heads = 4
        self.drop = 0.25
        self.embed = nn.Embedding(11, 16)
        self.qkv = nn.Linear(16, 48, bias=False)
        self.out = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.register_buffer("scale", torch.linspace(1, 2, 24), persistent=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.head = nn.Linear(16, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, 4).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, 16))
        hidden = self.mlp[1](self.mlp[0](x)) * self.scale
        return self.head(x + self.mlp[2](hidden))


TOKENS = torch.arange(10).reshape(2, 5)


def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file, what it holds, and what the model that it is of returns."""
    model = net()
    found = units(model, TOKENS)
    groups = {group.name: group for group in found.groups}
    chosen = [found.unit(label) for label in groups["mlp.0.weight[0]"].labels[::2]]
    chosen += [found.unit(label) for label in groups["qkv.weight[0]"].labels[:2]]
    shrink(model, TOKENS, units=chosen)
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_pruned(model, path)
    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return path, header, tensors, model(TOKENS).detach()


def state_of(model):
    """All that a file could change."""
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers())
    return {
        "tensors": {name: (id(t), t.dtype, t.detach().clone()) for name, t in tensors},
        "modules": [
            (name, type(m), {k: copy.copy(v) for k, v in vars(m).items() if k[:1] != "_"},
             dict(m._forward_hooks), dict(m._forward_pre_hooks), list(m._parameters))
            for name, m in model.named_modules()
        ],
        "mark": vars(model).get("_prune_surgery"),
    }  # fmt: skip


def unchanged(model, before):
    now = state_of(model)
    assert now["modules"] == before["modules"]
    assert now["mark"] is before["mark"]
    assert now["tensors"].keys() == before["tensors"].keys()
    for name, (identity, dtype, value) in before["tensors"].items():
        assert now["tensors"][name][:2] == (identity, dtype)
        assert torch.equal(now["tensors"][name][2], value), name


def refused(path, says, model=None):
    model = net() if model is None else model
    before = state_of(model)
    with pytest.raises(SpeedupError, match=says) as caught:
        load_pruned(model, path)
    assert str(caught.value).count(str(path)) == 1, "the file is named once"
    unchanged(model, before)


def test_it_comes_back_whole(small):
    path, _, _, expected = small
    model = load_pruned(net(), path)
    assert torch.equal(model(TOKENS), expected)
    assert model.scale.shape == (12,), "a buffer that no state_dict has"
    assert model(TOKENS[:1, :3]).shape == (1, 3, 11)


SURGERIES = {
    "is no JSON": "{",
    "is nested too deeply": "[" * 100_000,
    "must be a table": "[]",
    "surgery has 'more', which nothing is known of": '{"more": 1}',
    "'heads'.* is '2'; it must be a whole number or a list": '{"attributes": {"": {"heads": "2"}}}',
    "'heads'.* is True; it must": '{"attributes": {"": {"heads": true}}}',
    "'heads'.* is None; it must": '{"attributes": {"": {"heads": null}}}',
    "'heads'.* is 2.0; it must": '{"attributes": {"": {"heads": 2.0}}}',
    "'heads'.* is {'a': 1}; it must": '{"attributes": {"": {"heads": {"a": 1}}}}',
    "surgery.attributes is 3; it must be a table": '{"attributes": 3}',
    "sets 'heads' of the model, a Net, to 9": '{"attributes": {"": {"heads": 9}}}',
    "sets 'heads' of the model, a Net, to -2": '{"attributes": {"": {"heads": -2}}}',
    r"sets 'heads' of the model, a Net, to \[2\]": '{"attributes": {"": {"heads": [2]}}}',
    "sets 'drop'": '{"attributes": {"": {"drop": 0}}}',
    "sets 'training'": '{"attributes": {"": {"training": 1}}}',
    "sets 'forward'": '{"attributes": {"": {"forward": 1}}}',
    "sets '__class__'": '{"attributes": {"": {"__class__": 1}}}',
    "sets '_parameters'": '{"attributes": {"qkv": {"_parameters": 1}}}',
    "sets 'weight'": '{"attributes": {"qkv": {"weight": 1}}}',
    "sets 'new'": '{"attributes": {"": {"new": 1}}}',
    "'in_features' of 'out' is 9, and by the": '{"attributes": {"out": {"in_features": 9}}}',
    "changes 'nothing', and the model has no such module": '{"attributes": {"nothing": {}}}',
    "surgery.corrections.*must be a list": '{"corrections": {"": [["reshape", 0]]}}',
    "is 'x'; it must be a number": '{"corrections": {"": [[[], [[0, [["x", 2]], false]]]]}}',
    "corrects nothing that is there": '{"corrections": {"": [[[], [[0, [[4, 2]], false]]]]}}',
    "and Net has no eval": '{"corrections": {"": [[[["os", "eval", [1, 1, 2, 3], ""]], []]]}}',
    "it sets drop.0 to 1, and what is there": '{"sizes": {"": [[["drop", 0], 1]]}}',
    "it keeps 'nothing' of 'out'": '{"kept": {"out": ["nothing"]}}',
    r"surgery.biases\[0\] is 1; it must be a text": '{"biases": [1]}',
    "gives 'out' the bias 'out.bias'": '{"biases": ["out.bias"]}',
    "gives 'norm' the bias 'norm.weight'": '{"biases": ["norm.weight"]}',
    "gives 'qkv' the bias 'qkv.bias'": '{"biases": ["qkv.bias"]}',
}  # fmt: skip


@pytest.mark.parametrize("says", SURGERIES)
def test_a_plan_that_is_none(says, small, tmp_path):
    _, header, tensors, _ = small
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, header | {"surgery": SURGERIES[says]})
    refused(path, says)


@pytest.mark.parametrize("key", ["surgery", "tied"])
def test_a_header_with_something_missing_or_else(key, small, tmp_path):
    _, header, tensors, _ = small
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, {name: value for name, value in header.items() if name != key})
    refused(path, f"header is damaged: {key} is no JSON")
    save_file(tensors, path, header | {key: "3"})
    refused(path, f"header is damaged: {key} is 3; it must be a table")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.complex64])
def test_a_tensor_of_another_kind(dtype, small, tmp_path):
    _, header, tensors, _ = small
    path = tmp_path / "bad.safetensors"
    for name in ("embed.weight", "out.bias", "scale"):
        save_file(tensors | {name: tensors[name].to(dtype)}, path, header)
        refused(path, f"'{name}' holds .* in it and float32 in the model")
    save_file(tensors | {"steps": torch.zeros(())}, path, header)
    refused(path, "'steps' holds float32 in it and int64")
    save_file(tensors | {"out.bias": torch.zeros(16, 1)}, path, header)
    refused(path, "pruning never makes a tensor larger")


def test_ties_that_the_model_does_not_have_and_the_other_way_round(small, tmp_path):
    path, header, tensors, _ = small
    untied = net()
    untied.head.weight = nn.Parameter(torch.zeros(11, 16))
    refused(path, "'embed.weight' and 'head.weight' are one tensor in the file", untied)
    path = tmp_path / "bad.safetensors"
    both = tensors | {"head.weight": tensors["embed.weight"] + 1}
    save_file(both, path, header | {"tied": "{}"})
    refused(path, "'embed.weight' and 'head.weight' are one tensor in the model, and two")
    save_file(tensors, path, header | {"tied": '{"head.weight": "nothing"}'})
    refused(path, "has 'nothing', and the model has no such tensor")


def test_models_that_are_not_ready_for_it(small):
    path, *_ = small
    wrapped = net()
    wrapped.out = PrunerModuleWrapper(wrapped.out, "out", {})
    with pytest.raises(SpeedupError, match=r"goes into a plain model.*prune_core.unwrap"):
        load_pruned(wrapped, path)
    with torch.device("meta"):
        meta = Net()
    with pytest.raises(SpeedupError, match="on the meta device"):
        load_pruned(meta, path)


def test_a_path_that_is_none():
    with pytest.raises(SpeedupError, match="None cannot be the path of a file"):
        load_pruned(net(), None)
    with pytest.raises(SpeedupError, match="cannot be the path of a file"):
        load_pruned(net(), "a\0b")


def header_of(content):
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def load_or_refuse(content, tmp_path):
    path = tmp_path / "fuzzed.safetensors"
    path.write_bytes(content)
    model = net()
    before = state_of(model)
    try:
        load_pruned(model, path)
    except SpeedupError:
        unchanged(model, before)


FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@FUZZ
@given(at=st.integers(0, 3000), byte=st.integers(0, 255), cut=st.booleans())
def test_bytes_that_flipped_and_files_that_end_early(at, byte, cut, small, tmp_path):
    content = bytearray(small[0].read_bytes())
    at %= len(content)
    if cut:
        del content[at:]
    else:
        content[at] = byte
    load_or_refuse(bytes(content), tmp_path)


@FUZZ
@given(data=st.data())
def test_plans_of_any_content(data, small, tmp_path):
    """Some part of the plan, or of what is said of a tensor, becomes something else."""
    header, rest = header_of(small[0].read_bytes())
    surgery = json.loads(header["__metadata__"]["surgery"])
    where = ["a_module", "Net.forward", [3, 3, 15, 40], "x.reshape(2, 8)"]
    surgery["corrections"][""] = [[[where], [[0, [[8, 4]], False]]]]
    tree = {"surgery": surgery, "tied": json.loads(header["__metadata__"]["tied"])}
    node, path = tree, []
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        path.append((node, data.draw(st.sampled_from(keys))))
        node = node[path[-1][1]]
        if not isinstance(node, dict | list) or not node or data.draw(st.booleans()):
            break
    holder, key = path[-1]
    holder[key] = data.draw(PLAIN)
    header["__metadata__"] |= {name: json.dumps(value) for name, value in tree.items()}
    load_or_refuse(with_header(header, rest), tmp_path)


@FUZZ
@given(data=st.data())
def test_tensors_that_are_said_to_be_others(data, small, tmp_path):
    header, rest = header_of(small[0].read_bytes())
    name = data.draw(st.sampled_from([key for key in header if key != "__metadata__"]))
    dtypes = [
        "F32",
        "F64",
        "F16",
        "BF16",
        "F8_E4M3",
        "F4",
        "I64",
        "U8",
        "U64",
        "BOOL",
        "C64",
        "I128",
    ]
    header[name]["dtype"] = data.draw(st.sampled_from(dtypes))
    if data.draw(st.booleans()):
        header[name]["shape"] = data.draw(st.lists(st.integers(0, 2**40), max_size=3))
    if data.draw(st.booleans()):
        header[name]["data_offsets"] = data.draw(st.lists(st.integers(0, 2**66), max_size=3))
    load_or_refuse(with_header(header, rest), tmp_path)
