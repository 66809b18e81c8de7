import json

import pytest

from tests.vertex_server import serving


@pytest.fixture
def vertex():
    """A project on a server of this process, which the SDK of this process talks to."""
    with serving() as server:
        server.cloud()
        yield server


@pytest.fixture
def evaluation(tmp_path):
    """The folder of an evaluation, as far as the registry reads it."""
    content = {"metrics": {"model": {"gap": 0.81234}}}
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    return str(tmp_path)
