"""What is done so far: whole files, here and in a bucket."""

import numpy as np
import pytest

from components.extract_features.work_folder import WorkFolder
from trainer.errors import InputError


def check(work):
    work.make()
    assert work.names() == set()
    arrays = {"rgb": np.arange(6, dtype=np.float32).reshape(2, 3), "none": np.zeros((0, 4))}
    work.write("a.npz", {"frames": 2, "codec": "h264"}, arrays)
    work.write("b.npz", {}, {})
    assert work.names() == {"a.npz", "b.npz"}
    about, found = work.read("a.npz")
    assert about == {"frames": 2, "codec": "h264"}
    assert found.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)
    assert work.read("b.npz") == ({}, {})
    work.write("b.npz", {"anew": True}, {})
    assert work.read("b.npz")[0] == {"anew": True}
    with pytest.raises(InputError, match=r"did not leave .*c\.npz.* give --work"):
        work.read("c.npz")


def test_a_folder_of_this_machine(tmp_path):
    check(WorkFolder(str(tmp_path / "deep" / "work")))
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")]


def test_a_bucket(bucket):
    check(WorkFolder("gs://data/work"))
