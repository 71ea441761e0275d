"""What fails in the model's own modules shows its values."""

from __future__ import annotations

import pytest

for module in ("judge", "machine", "observed", "plain", "pods", "stage"):
    pytest.register_assert_rewrite(f"tests.ipam.model.{module}")
