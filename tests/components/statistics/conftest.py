"""What the tests of the statistics step share."""

import pytest
from markupsafe import Markup

from trainer.reporting import plots


@pytest.fixture
def no_drawing(monkeypatch):
    """Pages without their figures: half the time of a small run; `test_report` looks at them."""
    monkeypatch.setattr(plots, "_svg", lambda *args, **kwargs: Markup("<svg></svg>"))
