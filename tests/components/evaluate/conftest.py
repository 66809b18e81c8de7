import dataclasses

import pytest

from components.download.step import run_download
from components.statistics.step import run_statistics
from components.train.step import run_train


@dataclasses.dataclass(frozen=True)
class Trained:
    """Folders of tiny artifacts, and the configuration that they were made with."""

    examples: str
    statistics: str
    model: str
    config: object


@pytest.fixture(scope="session")
def trained(tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    config = dataclasses.replace(
        tiny_config,
        training=dataclasses.replace(tiny_config.training, baseline="logistic"),
        evaluation=dataclasses.replace(tiny_config.evaluation, resamples=200, champion_videos=2),
    )
    uri, _ = run_download("sample", str(folder / "state"), config, "", "")
    statistics, model = str(folder / "statistics"), str(folder / "model")
    run_statistics(uri, statistics, str(folder / "r.html"), [])
    run_train(uri, statistics, config, "", model)
    return Trained(uri, statistics, model, config)
