"""A `config_list` from a YAML file."""

from os import PathLike
from pathlib import Path
from typing import Any

from prune_core.errors import ConfigError, MissingDependencyError

__all__ = ["load_config"]


def load_config(path: str | PathLike[str]) -> list[dict[str, Any]]:
    """Read a `config_list` from YAML: a list of entries, alone or under the key `config_list`.

    Only plain data is read; a file cannot run code.

    Raises:
        ConfigError: When the file is missing, is not YAML, or holds something else.
    """
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError(
            "Reading a config from YAML needs PyYAML: `pip install pyyaml`."
        ) from None
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} cannot be the path of a file: {error}.") from error
    try:
        content = yaml.load(text.decode("utf-8"), _loader())
    # A date that does not exist, or a number of thousands of digits, is a ValueError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if isinstance(content, dict):
        content = content.get("config_list")
    if not isinstance(content, list):
        raise ConfigError(
            f"{path} holds no list of entries, neither alone nor under the key 'config_list'."
        )
    return content


def _loader() -> Any:
    """Return YAML's safe loader, made to refuse a key that stands twice in one entry."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, ten times faster

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(str(key.value))
            made: dict[Any, Any] = super().construct_mapping(node, deep)
            return made

    return Loader
