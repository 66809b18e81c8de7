"""A Docker engine, and the images of this code in it."""

import os
import shutil
import tempfile
from pathlib import Path

import docker
import pytest

from pipeline.docker_engine import docker_engine
from pipeline.image_names import image_name
from tests.workplace import Workplace
from trainer.errors import InputError

USER = 12345
"""Of nobody on this machine."""


@pytest.fixture(scope="session")
def engine():
    try:
        with docker_engine() as client:
            yield client
    except InputError as error:
        # Whoever asks for these tests has an engine: passing over them all would look like success.
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def image(engine):
    """The name of the image of a kind; it has to be there."""

    def name_of(kind):
        name = image_name(kind)
        try:
            engine.images.get(name)
        except docker.errors.ImageNotFound:
            if kind in ("cpu", "serving"):
                pytest.fail(f"image {name} is not there: make images")
            pytest.skip(f"image {name} is not there: make images IMAGES='cpu {kind}'")
        return name

    return name_of


@pytest.fixture
def workplace(image, tmp_path):
    image("cpu")
    return Workplace(tmp_path, flags=["--target", "docker"])


@pytest.fixture
def open_folder():
    """A folder that is another user's to write to; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="nextvlad-"))
    os.chown(folder, USER, USER)
    yield folder
    shutil.rmtree(folder)
