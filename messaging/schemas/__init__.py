"""Schemas: what the bodies of a topic have to look like, in JSON Schema (draft 2020-12)."""

from .compatibility import check_compatible, difference
from .documents import check_document, is_same
from .validation import Fault, Validator

__all__ = ["Fault", "Validator", "check_compatible", "check_document", "difference", "is_same"]
