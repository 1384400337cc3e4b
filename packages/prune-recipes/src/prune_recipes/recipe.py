"""What a recipe consists of.

The models hold the form of a recipe: which keys there are, of which types, and which exclude each
other. What depends on the installed plugins, such as names and options of algorithms, is checked
in `checks`; both together are written down in the JSON Schema of `schema`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = [
    "Algorithm",
    "Call",
    "Export",
    "Inputs",
    "Model",
    "Recipe",
    "Recovery",
    "Shrink",
    "Strict",
    "TensorSpec",
    "Training",
]

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
TARGET = rf"^{_NAME}(\.{_NAME})*:{_NAME}(\.{_NAME})*$"
# A name within a folder: no path, and neither "." nor "..".
FILE_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9_. -]*$"
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool")


class Strict(BaseModel):
    """A mapping with known keys, whose values are what they say and are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    # Of which keys there must be exactly one.
    one_of: ClassVar[tuple[str, ...]] = ()
    # Which keys need another one.
    needs: ClassVar[dict[str, str]] = {}
    # Which two keys exclude each other.
    not_both: ClassVar[tuple[tuple[str, str], ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _check_none_is_empty(cls, value: Any) -> Any:
        if isinstance(value, dict) and (empty := [key for key in value if value[key] is None]):
            raise ValueError(f"has nothing after {empty[0]!r}; give a value, or take the key out")
        return value

    @model_validator(mode="after")
    def _check_keys(self) -> Strict:
        given = {type(self).model_fields[name].alias or name for name in self.model_fields_set}
        said = [key for key in self.one_of if key in given]
        if self.one_of and len(said) != 1:
            keys = ", ".join(self.one_of[:-1]) + f" or {self.one_of[-1]}"
            raise ValueError(
                f"has both {said[0]!r} and {said[1]!r}; give one of {keys}"
                if said
                else f"needs one of {keys}"
            )
        for key, other in self.needs.items():
            if key in given and other not in given:
                raise ValueError(f"has {key!r}, which needs {other!r} beside it")
        for one, other in self.not_both:
            if one in given and other in given:
                raise ValueError(f"has both {one!r} and {other!r}; give one of them")
        return self


def _as_call(value: Any) -> Any:
    return {"call": value} if isinstance(value, str) else value


class Call(Strict):
    """A function or class of Python, and what it is called with."""

    call: Annotated[str, Field(pattern=TARGET, description="package.module:name")]
    arguments: Annotated[dict[str, Any], Field(description="Its arguments, by name.")] = {}


Callable = Annotated[Call, BeforeValidator(_as_call)]


class Model(Strict):
    """Where the model comes from."""

    one_of = ("call", "huggingface", "file")
    needs: ClassVar[dict[str, str]] = {
        "arguments": "call",
        "class": "huggingface",
        "pickle": "file",
    }

    call: Annotated[
        str | None, Field(pattern=TARGET, description="A function or class that makes it.")
    ] = None
    arguments: Annotated[dict[str, Any], Field(description="What `call` is called with.")] = {}
    huggingface: Annotated[
        str | None, Field(min_length=1, description="A folder that save_pretrained wrote.")
    ] = None
    class_: Annotated[
        str,
        Field(alias="class", description="The class of transformers that reads the folder."),
    ] = "AutoModel"
    file: Annotated[
        str | None, Field(min_length=1, description="A model saved whole: .pt2, or a pickle.")
    ] = None
    pickle: Annotated[
        bool, Field(description="Whether `file` may be unpickled, which can run any code.")
    ] = False
    weights: Annotated[
        str | None,
        Field(min_length=1, description="A state dict for it: .safetensors, .pt or .pth."),
    ] = None


class TensorSpec(Strict):
    """A tensor of random numbers."""

    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(description="Its shape.")]
    dtype: Annotated[Literal[DTYPES], Field(description="Its type.")] = "float32"  # type: ignore[valid-type]
    below: Annotated[int, Field(ge=1, description="Whole numbers are drawn below this one.")] = 2


class Inputs(Strict):
    """Example inputs of the model, with which it is traced and compared."""

    one_of = ("call", "shape", "tensors", "file")
    needs: ClassVar[dict[str, str]] = {"arguments": "call", "dtype": "shape", "below": "shape"}

    call: Annotated[
        str | None, Field(pattern=TARGET, description="A function that returns them.")
    ] = None
    arguments: Annotated[dict[str, Any], Field(description="What `call` is called with.")] = {}
    shape: Annotated[
        list[Annotated[int, Field(ge=1)]] | None,
        Field(description="The shape of one tensor, the batch first."),
    ] = None
    dtype: Annotated[Literal[DTYPES], Field(description="Its type.")] = "float32"  # type: ignore[valid-type]
    below: Annotated[int, Field(ge=1, description="Whole numbers are drawn below this one.")] = 2
    tensors: Annotated[
        dict[str, TensorSpec] | None,
        Field(min_length=1, description="Several tensors, by the names of the forward."),
    ] = None
    file: Annotated[
        str | None, Field(min_length=1, description="Tensors: .safetensors, .pt or .npy.")
    ] = None


class Training(Call):
    """A function that trains the model."""

    epochs: Annotated[
        int | None,
        Field(ge=1, description="How many times to call it, once per epoch; each is kept on disk."),
    ] = None
    optimizer: Annotated[
        Callable | None,
        Field(description="An optimizer class; its state is kept from epoch to epoch."),
    ] = None


class Algorithm(Strict):
    """One algorithm, and how much it prunes."""

    one_of = ("sparsity", "target", "count", "config_list")
    not_both = (("targets", "config_list"), ("exclude", "config_list"))

    algorithm: Annotated[str, Field(description="The name of a registered pruner.")]
    sparsity: Annotated[
        float | None, Field(ge=0, lt=1, description="The share of each layer that goes.")
    ] = None
    target: Annotated[
        dict[str, Annotated[float, Field(gt=0)]] | None,
        Field(min_length=1, description="What may be left, such as {flops: 0.5}."),
    ] = None
    count: Annotated[
        int | None, Field(ge=1, description="How many blocks go; for algorithms of blocks.")
    ] = None
    config_list: Annotated[
        list[dict[str, Any]] | None, Field(min_length=1, description="The rules, layer by layer.")
    ] = None
    targets: Annotated[
        list[str] | None, Field(min_length=1, description="Layers to prune, by name or class.")
    ] = None
    exclude: Annotated[list[str], Field(description="Layers that stay, by name or class.")] = []
    reconstruct: Annotated[
        str | list[str] | None,
        Field(description="How weights that stay make up for those that go."),
    ] = None
    options: Annotated[
        dict[str, Any], Field(description="Further arguments of the algorithm.")
    ] = {}


class Shrink(Strict):
    """How what is masked is removed."""

    constants: Annotated[
        Literal["exact", "keep", "fold", "zero", "remove"],
        Field(description="What becomes of constants that masked channels carry."),
    ] = "exact"
    tolerance: Annotated[
        float | None, Field(gt=0, description="The largest relative difference allowed.")
    ] = None
    measure: Annotated[bool, Field(description="Whether both models are timed.")] = True


class Recovery(Strict):
    """Training with the dense model as the teacher; needs prune-recover."""

    not_both = (("steps", "epochs"),)

    data: Annotated[Callable, Field(description="A function that returns batches.")]
    validation: Annotated[
        Callable | None,
        Field(description="One that returns other batches: what makes them worse is taken back."),
    ] = None
    steps: Annotated[int | None, Field(ge=1, description="After how many steps to stop.")] = None
    epochs: Annotated[int | None, Field(ge=1, description="After how many epochs to stop.")] = None
    learning_rate: Annotated[float, Field(gt=0, description="The largest learning rate.")] = 1e-3
    options: Annotated[
        dict[str, Any], Field(description="Further arguments of prune_recover.recover.")
    ] = {}


class Export(Strict):
    """A file for other tools."""

    format: Annotated[str, Field(description="The name of a registered exporter.")]
    file: Annotated[
        str | None,
        Field(pattern=FILE_NAME, description="Its name in the folder exports of the run."),
    ] = None
    options: Annotated[dict[str, Any], Field(description="Further arguments of the exporter.")] = {}


class Recipe(Strict):
    """All of a recipe."""

    not_both = (("calibrate", "data"),)

    model: Annotated[Model, BeforeValidator(_as_call)]
    inputs: Annotated[Inputs, BeforeValidator(_as_call)]
    prune: Annotated[list[Algorithm], Field(min_length=1, description="One after the other.")]
    version: Annotated[Literal[1], Field(description="The version of this format.")] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Of all random numbers.")] = 0
    device: Annotated[
        str, Field(pattern=r"^[a-z]+(:\d+)?$", description="Where to run: cpu, cuda, cuda:1, mps.")
    ] = "cpu"
    train: Annotated[
        Training | None,
        BeforeValidator(_as_call),
        Field(description="Trains the dense model first."),
    ] = None
    calibrate: Annotated[
        Callable | None, Field(description="A function that runs the model on some batches.")
    ] = None
    data: Annotated[
        Callable | None, Field(description="A function that returns inputs of the model instead.")
    ] = None
    evaluate: Annotated[
        Callable | None, Field(description="A function of the model that returns how good it is.")
    ] = None
    shrink: Annotated[
        Shrink | bool, Field(description="How to make it smaller; false leaves it masked.")
    ] = Shrink()
    finetune: Annotated[
        Training | None,
        BeforeValidator(_as_call),
        Field(description="Trains the small model."),
    ] = None
    recover: Annotated[
        Recovery | None, Field(description="Trains it with the dense model as its teacher.")
    ] = None
    export: Annotated[list[Export], Field(description="What to write for other tools.")] = []
