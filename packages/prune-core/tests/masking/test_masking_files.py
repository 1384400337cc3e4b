"""Mask files: what survives, and what is refused."""

import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from prune_core import apply_compression_results, load_masks, save_masks
from prune_core.errors import MaskError, MaskFileError
from prune_core.maskfile import read_mask_file
from prune_core.masking import PrunerModuleWrapper
from prune_core.masking.files import check_masks


@pytest.fixture
def masks():
    return {
        "0": {"weight": torch.eye(4, 3).bool(), "bias": torch.tensor([1.0, 1, 1, 0]).bool()},
        "1": {"weight": torch.ones(2, 4).bool()},
    }


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.BatchNorm1d(2))


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].keys() == b[name].keys()
        assert all(torch.equal(a[name][t].bool(), b[name][t].bool()) for t in a[name])


def test_round_trip(tmp_path, masks):
    path = tmp_path / "masks.safetensors"
    save_masks(path, masks, algorithm="L1", config={"0": {"sparsity": 0.5}})
    same(load_masks(path), masks)
    content = read_mask_file(path)
    assert (content.algorithm, content.config) == ("L1", {"0": {"sparsity": 0.5}})
    assert [p.name for p in tmp_path.iterdir()] == ["masks.safetensors"]


def test_the_name_of_the_file_does_not_matter(tmp_path, masks):
    save_masks(tmp_path / "mask.pth", masks)
    same(load_masks(tmp_path / "mask.pth"), masks)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_older_tools(tmp_path, masks, zipped):
    path = tmp_path / "mask.pth"
    old = {n: {t: m.float() for t, m in tensors.items()} for n, tensors in masks.items()}
    old["1"]["bias"] = None
    torch.save(old, path, _use_new_zipfile_serialization=zipped)
    same(load_masks(path), masks)


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


def test_a_file_cannot_run_code(tmp_path, capsys):
    path = tmp_path / "mask.pth"
    torch.save({"0": {"weight": Evil()}}, path)
    with pytest.raises(MaskFileError, match="cannot be loaded safely"):
        load_masks(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(MaskFileError):
        load_masks(path)
    assert capsys.readouterr().out == ""


def test_damaged_and_foreign_files(tmp_path, masks, model):
    path = tmp_path / "masks.safetensors"
    save_masks(path, masks)
    whole = path.read_bytes()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for end in (0, 1, 7, 8, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(MaskFileError, match="masks.safetensors"):
            apply_compression_results(model, path)
    path.write_bytes(b"nonsense" * 100)
    with pytest.raises(MaskFileError, match="damaged or not a mask file"):
        load_masks(path)
    save_file(model.state_dict(), path)
    with pytest.raises(MaskFileError, match="not one of masks"):
        load_masks(path)
    torch.save(model.state_dict(), path)
    with pytest.raises(MaskFileError, match="does not hold masks"):
        load_masks(path)
    torch.save(masks, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MaskFileError, match="is damaged"):
        load_masks(path)
    with pytest.raises(MaskFileError, match=r"none.safetensors: No such file"):
        load_masks(tmp_path / "none.safetensors")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


OURS = {"format": "prune-masks", "format_version": "1"}


@pytest.mark.parametrize(
    ("tensor", "metadata", "says"),
    [
        (torch.ones(4, 3).bool(), {"config": "{damaged"}, "is damaged: the config in its header"),
        (torch.ones(4, 3).bool(), {"config": "[" * 100_000}, "is damaged: the config in its head"),
        (torch.ones(4, 3).bfloat16(), {}, "a mask holds booleans"),
        (torch.ones(4, 3), {}, "0.weight holds float32, and a mask holds booleans"),
        (torch.full((4, 3), 65, dtype=torch.uint8).view(torch.bool), {}, "neither 0 nor 1"),
    ],
)
def test_a_file_that_is_nearly_ours_is_refused(tmp_path, tensor, metadata, says):
    save_file({"0.weight": tensor}, tmp_path / "m", OURS | metadata)
    with pytest.raises(MaskFileError, match=says):
        load_masks(tmp_path / "m")


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({0: torch.ones(4, 3)}, "does not hold masks"),
        ({"weight": torch.ones(4, 3).to_sparse()}, "does not hold masks"),
        ({"weight": torch.ones(4, 3, device="meta")}, "does not hold masks"),
        ({"weight": torch.full((4, 3), 0.5)}, "0.weight holds 0.5; a mask holds 0"),
        ({"weight": torch.full((4, 3), torch.nan)}, "0.weight holds nan"),
        ({"weight": torch.full((4, 3), 65, dtype=torch.uint8).view(torch.bool)}, "holds 65"),
    ],
)
def test_what_an_older_file_holds_is_looked_at(tmp_path, tensors, says):
    torch.save({"0": tensors}, tmp_path / "m.pth")
    with pytest.raises(MaskFileError, match=says):
        load_masks(tmp_path / "m.pth")


def test_a_file_of_a_later_format_is_refused(tmp_path):
    path = tmp_path / "masks.safetensors"
    save_file({"0.weight": torch.ones(1).bool()}, path, {"format": "prune-masks"})
    with pytest.raises(MaskFileError, match="Upgrade prune-core"):
        load_masks(path)


def test_a_file_is_not_applied_to_a_wrapped_model(tmp_path, masks, model):
    save_masks(tmp_path / "m", masks)
    wrapper = PrunerModuleWrapper(model[0], "0", {})
    wrapper.set_masks({"weight": torch.ones(4, 3)})
    model[0] = wrapper
    with pytest.raises(MaskError, match=r"The model is wrapped \('0' among others\)"):
        apply_compression_results(model, tmp_path / "m")


def test_a_file_is_not_applied_to_a_model_without_values(tmp_path, masks, model):
    save_masks(tmp_path / "m", masks)
    with pytest.raises(MaskError, match=r"0.weight is on the meta device"):
        apply_compression_results(model.to("meta"), tmp_path / "m")


def test_applying_a_file_writes_zeros(tmp_path, masks, model):
    save_masks(tmp_path / "m", masks)
    expected = model[0].weight.detach() * masks["0"]["weight"]
    apply_compression_results(model, tmp_path / "m", "cpu")
    assert torch.equal(model[0].weight, expected)
    assert model[0].bias[3] == 0


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ({"fc": {"weight": torch.ones(4, 3)}}, "no module of that name"),
        ({"0": {"scale": torch.ones(4, 3)}}, "this Linear does not have"),
        ({"2": {"running_mean": torch.ones(2)}}, "2.running_mean, a parameter which"),
        ({"0": {"weight": torch.ones(4, 4)}}, "Were the masks made for another model"),
    ],
)
def test_masks_of_another_model_are_refused(tmp_path, masks, says, model):
    save_masks(tmp_path / "m", {"1": {"weight": torch.zeros(2, 4)}, **masks})
    before = model[1].weight.clone()
    with pytest.raises(MaskError, match=says):
        apply_compression_results(model, tmp_path / "m")
    assert torch.equal(model[1].weight, before)


def test_a_file_is_applied_as_a_whole_or_not_at_all(tmp_path, masks, model):
    """Outside of inference mode, torch writes nothing into what was made in it."""
    save_masks(tmp_path / "m", masks)
    with torch.inference_mode():
        model[1].weight = nn.Parameter(torch.ones(2, 4), requires_grad=False)
    before = model[0].weight.clone()
    with pytest.raises(MaskError, match="No zeros can be written into a parameter: .*inference"):
        apply_compression_results(model, tmp_path / "m")
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("path", [None, 3, "a\0b"])
def test_what_can_be_no_path(path, model):
    with pytest.raises(MaskFileError, match="cannot be the path of a file"):
        load_masks(path)
    with pytest.raises(MaskFileError, match="cannot be the path of a file"):
        read_mask_file(path)


@pytest.mark.parametrize("config", ["[1]", "3", "null", "{damaged", "[" * 100_000])
def test_a_config_in_a_header_that_is_none(tmp_path, config):
    save_file({"0.weight": torch.ones(1).bool()}, tmp_path / "m", OURS | {"config": config})
    with pytest.raises(MaskFileError, match="is damaged: the config in its header"):
        load_masks(tmp_path / "m")


def test_the_file_is_named_once(tmp_path):
    with pytest.raises(MaskFileError) as caught:
        read_mask_file(tmp_path / "none")
    assert str(caught.value) == f"{tmp_path / 'none'}: No such file or directory."
    with pytest.raises(MaskFileError, match="Is a directory"):
        load_masks(tmp_path)


def compiled(model):
    return torch.compile(model, backend="eager")


NAMES = ("module.0", "_orig_mod.0", "module._orig_mod.0", "0")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel, compiled])
def test_names_from_another_wrapping(name, wrap, tmp_path, masks, model):
    save_masks(tmp_path / "m", {name: masks["0"]})
    expected = model[0].weight.detach() * masks["0"]["weight"]
    apply_compression_results(wrap(model), tmp_path / "m")
    assert torch.equal(model[0].weight, expected)


def test_two_names_of_one_layer_are_refused(tmp_path, masks, model):
    save_masks(tmp_path / "m", {"0": masks["0"], "module.0": masks["0"]})
    with pytest.raises(MaskError, match="'0' and 'module.0' are names of one layer"):
        apply_compression_results(model, tmp_path / "m")


def test_a_child_that_is_called_module_is_a_child():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(3, 4)

    model = Inner()
    with pytest.raises(MaskError, match="no module of that name"):
        check_masks(model, {"fc": {"weight": torch.ones(4, 3)}})
    check_masks(model, {"module": {"weight": torch.ones(4, 3)}})
    check_masks(nn.DataParallel(model), {"module.module": {"weight": torch.ones(4, 3)}})


@settings(max_examples=80, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(at=st.integers(0, 3000), byte=st.integers(0, 255), cut=st.booleans(), ours=st.booleans())
def test_damaged_bytes(at, byte, cut, ours, tmp_path, masks):
    path = tmp_path / "fuzzed"
    save_masks(path, masks) if ours else torch.save(masks, path)
    content = bytearray(path.read_bytes())
    at %= len(content)
    if cut:
        del content[at:]
    else:
        content[at] = byte
    path.write_bytes(content)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        apply_compression_results(model, path)
    except MaskError:
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
