"""A second device on any machine: built from `pretend.cpp`, and known to this whole process.

A GPU refuses to compute with tensors of two devices; so does this one. Whatever is right here
makes each tensor where the model is, and moves what comes from a file or from numpy to it.
"""

import os
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils import cpp_extension

SOURCE = Path(__file__).with_name("pretend.cpp")
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


def built(folder):
    library = folder / "pretend.so"
    flags = ["-std=c++20", "-O0", "-w", "-fPIC", "-shared"]
    includes = [f"-I{path}" for path in cpp_extension.include_paths()]
    linked = [f"-L{path}" for path in cpp_extension.library_paths()] + ["-ltorch_cpu", "-lc10"]
    command = [COMPILER, *flags, *includes, str(SOURCE), *linked, "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


def convolve(x, weight, bias, *sizes):
    assert {t.device for t in (x, weight, bias) if t is not None} == {x.device}
    tensors = [t if t is None else t.cpu() for t in (x, weight, bias)]
    return torch.ops.aten.convolution(*tensors, *sizes).to(x.device)


def convolve_back(gradient, x, weight, *sizes):
    *sizes, wanted = sizes
    transposed, groups = sizes[3], sizes[5]
    width = weight.shape[1] * groups if transposed else weight.shape[0]
    tensors = [gradient.cpu(), x.cpu(), weight.cpu()]
    bias_sizes = [width] if wanted[2] else None
    found = torch.ops.aten.convolution_backward(*tensors, bias_sizes, *sizes, wanted)
    return tuple(t if t is None else t.to(x.device) for t in found)


@pytest.fixture(scope="session")
def pretend(tmp_path_factory):
    """The device, registered."""
    if not os.environ.get("PRUNE_TEST_DEVICE"):
        pytest.skip("a device cannot be taken back from a process: tox run -e device")
    if COMPILER is None:
        pytest.skip("the device is built with a C++ compiler, and there is none")
    torch.utils.rename_privateuse1_backend("pretend")
    module = ModuleType("torch.pretend")
    module.is_available = module.is_initialized = lambda: True
    module._is_in_bad_fork = lambda: False
    module._lazy_init = module.synchronize = module.manual_seed_all = lambda *args: None
    module.current_device, module.device_count = lambda: 0, lambda: 1
    module.device = lambda index: nullcontext()
    module.get_amp_supported_dtype = lambda: []
    # Its numbers are drawn on the processor, so it has none of its own; the state has to be kept.
    states = {0: torch.zeros(1)}
    module.get_rng_state = lambda device: states[0]
    module.set_rng_state = lambda state, device: states.update({0: state})
    torch._register_device_module("pretend", module)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    torch.ops.load_library(built(tmp_path_factory.mktemp("device")))
    library = torch.library.Library("aten", "IMPL")
    library.impl("convolution_overrideable", convolve, "PrivateUse1")
    library.impl("convolution_backward_overrideable", convolve_back, "PrivateUse1")
    yield torch.device("pretend", 0)
    del library
