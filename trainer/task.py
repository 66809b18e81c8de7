"""`python -m trainer.task`: training alone, without the pipeline around it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from trainer.config import Config, parse_overrides
from trainer.errors import reported
from trainer.files import read_json
from trainer.manifest import read_manifest
from trainer.progress import say
from trainer.statistics import read_statistics
from trainer.training import class_priors, train


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.task", description=__doc__)
    parser.add_argument("--examples", required=True, help="folder of manifest.json")
    parser.add_argument("--statistics", required=True, help="folder of statistics.json")
    parser.add_argument("--checkpoints", required=True, help="folder that outlives the training")
    parser.add_argument("--output", required=True, help="folder of the trained model, to write")
    parser.add_argument("--like", help="folder of a trained model: start at its configuration")
    parser.add_argument(
        "--overrides", default="{}", help='JSON, such as {"training": {"epochs": 3}}, or @FILE'
    )
    options = parser.parse_args(arguments)
    with reported():
        text = options.overrides
        if text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8", errors="replace")
        config = Config()
        if options.like:
            trained = read_json(Path(options.like) / "config.json")
            config = config.updated({name: trained[name] for name in ("data", "model", "training")})
        config = config.updated(parse_overrides(text))
        manifest = read_manifest(options.examples)
        _, arrays = read_statistics(options.statistics, manifest.fingerprint)
        priors = class_priors(manifest, arrays)
        train(config, manifest, priors, options.checkpoints, options.output)
        say("train", f"trained model written to {options.output}")


if __name__ == "__main__":
    main()
