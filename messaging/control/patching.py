"""Change a JSON document by a merge patch (RFC 7386)."""

import copy
from typing import Any


def merge(target: Any, patch: Any) -> Any:
    """Return a document with a patch applied: fields that are null go, objects are merged."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged
