"""Shared by the tests of teachers."""

import pytest

# The laws live outside test files, so their asserts would otherwise fail without the values.
pytest.register_assert_rewrite("conformance.teacher")
