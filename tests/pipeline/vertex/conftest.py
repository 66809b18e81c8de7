import signal

import pytest
from google.cloud.aiplatform.utils import gcs_utils

from tests.vertex_server import serving


@pytest.fixture(autouse=True)
def handlers():
    """The command sets its own for signals; here it is no process of its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def vertex(monkeypatch):
    """A project on a server of this process; nothing is there yet."""
    # The SDK makes a bucket that is not there; whose it is, it asks another service than this one.
    monkeypatch.setattr(
        gcs_utils,
        "create_gcs_bucket_for_pipeline_artifacts_if_it_does_not_exist",
        lambda output_artifacts_gcs_dir, **_: output_artifacts_gcs_dir,
    )
    with serving() as server:
        yield server
