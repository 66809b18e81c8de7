import json

import pytest

from tests.vertex_server import serving


@pytest.fixture
def vertex():
    with serving() as server:
        server.cloud()
        yield server


@pytest.fixture
def evaluation(tmp_path):
    content = {"metrics": {"model": {"gap": 0.81234}}}
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    return str(tmp_path)
