"""What the engines' tests start from."""

import pytest

# Before the first import of it, so that its asserts explain themselves.
pytest.register_assert_rewrite("engines.contract")
