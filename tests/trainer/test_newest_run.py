"""The newest run that has something."""

import pytest

from trainer.errors import InputError
from trainer.newest_run import newest


def test_the_newest_run_that_has_a_model(tmp_path):
    for name in ("20260101-000000", "20260301-000000", "20260301-000000-2"):
        (tmp_path / name / "serving_model").mkdir(parents=True)
    (tmp_path / "20260401-000000").mkdir()  # its model was not blessed
    (tmp_path / ".pipeline" / "serving_model").mkdir(parents=True)
    (tmp_path / "20260501-000000").mkdir()
    (tmp_path / "20260501-000000" / "serving_model").symlink_to(tmp_path / "removed")
    assert newest(tmp_path, "serving_model") == tmp_path / "20260301-000000-2" / "serving_model"
    with pytest.raises(InputError, match=r"absent: no run there has examples; make one"):
        newest(tmp_path / "absent", "examples")
