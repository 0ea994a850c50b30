"""The filter `to_toml`: a dictionary of settings as a TOML document. Plain values stand first, then inline tables."""

import json
from collections.abc import Callable, Mapping
from typing import Any


def _value(value: Any) -> str:
    # bool is an int in Python, so it is asked first; JSON's strings, numbers and booleans are TOML's as well.
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items() if one is not None) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)


def _key(key: object) -> str:
    return json.dumps(str(key), ensure_ascii=False)


def to_toml(settings: Mapping[str, Any]) -> str:
    """Return one `key = value` a line; keys that are null are left out, as TOML has no null."""
    return "".join(f"{key} = {_value(value)}\n" for key, value in settings.items() if value is not None)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Name the filters of this file."""
        return {"to_toml": to_toml}
