"""Failures inside the shared laws are shown like failures in a test file."""

import pytest

pytest.register_assert_rewrite("conformance.student")
