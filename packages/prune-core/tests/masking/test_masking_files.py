"""Mask files: what survives, and what is refused."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prune_core import apply_compression_results, load_masks, save_masks
from prune_core.errors import MaskError, MaskFileError
from prune_core.maskfile import read_mask_file
from prune_core.masking import PrunerModuleWrapper


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
