"""A KFP server on the loopback, and a client that waits for nothing long."""

import pytest

from pipeline.clusters.connection import Patience
from pipeline.clusters.endpoint import Endpoint
from tests.kfp_server import KfpServer

QUICK = Patience(
    answer_seconds=1.0, connect_seconds=1.0, outage_seconds=3.0, first_wait=0.02, longest_wait=0.05
)


@pytest.fixture
def server():
    one = KfpServer()
    yield one
    one.close()
    assert one.bug is None


@pytest.fixture
def endpoint(server):
    return Endpoint(server.host, patience=QUICK)
