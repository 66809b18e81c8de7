"""The card says what the files say, in both of its forms."""

import copy
import dataclasses
import json
import re

import numpy as np
import pytest

from components.export.card_facts import CardFacts, read_evaluation
from components.export.model_card import model_card
from tests.browser import WIDTHS, look, needs_browser
from tests.conftest import TINY_MODEL
from tests.documents import Words, markdown_to_html
from trainer.config import Config, ModelConfig
from trainer.errors import InputError
from trainer.inference_model import inference_model
from trainer.manifest import Manifest, Shard
from trainer.models import build_model
from trainer.reporting.document import as_html, as_markdown

EVIL = "<script>alert(1)</script> | `a` *b*"
CURVE = {"recall": [0.0, 1.0], "precision": [1.0, 0.5]}
RELIABILITY = {"counts": [3, 5], "confidence": [0.2, 0.7], "precision": [0.1, 0.8]}


def metrics(gap):
    others = {"map": 0.2345, "map_all_classes": 0.1234, "hit_at_1": 0.6543, "perr": 0.5432}
    return {"gap": gap, **others, "videos": 40, "positives": 60}


EVALUATION = {
    "split": "validate",
    "headline": "GAP@20",
    "videos": 40,
    "labelled_videos": 39,
    "confidence": 0.9,
    "resamples": 1234,
    "champion_vocabulary_known": True,
    "names": {"model": "nextvlad", "baseline": "logistic", "champion": "exported"},
    "metrics": {"model": metrics(0.7654), "baseline": metrics(0.3456), "champion": metrics(0.7111),
                "ceiling": metrics(0.9876)},
    "intervals": {name: {"value": 0.5, "low": 0.4321, "high": 0.5678}
                  for name in ("model", "baseline", "champion", "ceiling")},
    "differences": {"baseline": {"value": 0.4198, "low": 0.3987, "high": 0.4444},
                    "champion": {"value": 0.0543, "low": -0.0111, "high": 0.0999}},
    "precision_recall": {"model": CURVE},
    "reliability": {"model": RELIABILITY | {"error": 0.0765}},
    "slices": [
        {"group": "vertical", "name": EVIL, "videos": 17, "classes": 3, "positives": 19,
         "gap": {"model": 0.8123, "baseline": 0.4011}},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def facts():
    shards = tuple(
        Shard(split, f"/data/{split}0.tfrecord", 5_000_000, "", count)
        for split, count in (("train", 123), ("validate", 40))
    )
    manifest = Manifest("youtube8m:2/frame", "frame", 12, shards)
    config = Config().updated({"model": TINY_MODEL, "export": {"top_k": 7}})
    trained = {name: config.as_dict()[name] for name in ("data", "model", "training")}
    trained = copy.deepcopy(trained)
    trained["training"] |= {"epochs": 3, "batch_size": 41}
    trained["data"]["max_frames"] = 77
    training = {
        "parameters": 987_654,
        "history": [{"epoch": 3, "step": 9, "examples": 369}],
        "timings": [{"training_seconds": 5.0}, {"training_seconds": 3725.0}],
    }
    classes = [{"positives": str(count)} for count in (0, 0, 1, 4, 5, 50)]
    export = {
        "signatures": {"serving_default": {"inputs": {"examples": "string [B]"},
                                           "outputs": {"scores": "float32 [B,7]"}}},
        "top_k": 7, "weights": "float16", "bytes": 3_210_000, "reloaded_records": 33,
        "largest_difference": 4e-7, "compared_with": "its rounded weights in float32",
        "float16": {"videos": 40, "gap_float32": 0.76543, "gap_float16": 0.76321,
                    "gap_loss": 0.00222, "largest_change": 0.003},
        "onnx": {"file": "model.onnx", "bytes": 2_222_222, "opset": 18, "onnxruntime": "9.8.7",
                 "records": 31, "largest_difference": 3e-6},
    }  # fmt: skip
    model = inference_model(build_model(ModelConfig(**TINY_MODEL), 12, "frame"))
    evaluation = EVALUATION | {"data_fingerprint": manifest.fingerprint}
    return CardFacts(manifest, trained, training, evaluation, classes, export, config, model)


def shown(facts):
    """The texts of both forms; drawings are left out."""
    document = model_card(facts)
    page = Words(re.sub("<svg.*?</svg>", "", as_html(document), flags=re.S))
    marked = Words(markdown_to_html(as_markdown(document)))
    return page, marked


def test_numbers_of_the_files_are_in_both_forms(facts):
    for form in shown(facts):
        text = "\n".join(form.said)
        for number in (
            "0.7654", "0.3456", "0.7111", "0.9876", "0.2345", "0.1234", "0.6543", "0.5432",
            "0.4321 to 0.5678", "90% interval", "1,234 resamples", "+0.4198", "-0.0111 to +0.0999",
            "0.0765", "0.8123", "987,654", "3 epochs, 9 steps, 369 examples in 1:02:05",
            "33 records within 4e-07 of the scores of its rounded weights in float32",
            "GAP@20 0.76321 against 0.76543", "a loss of 0.002", "3,210,000 bytes", "float16",
            "onnxruntime 9.8.7 scored 31 records within 3e-06", "examples string [B]",
            "champion (exported)", "may be chance", "beyond chance", "40 videos, 39 of them",
            "CC BY 4.0", facts.manifest.fingerprint, "cluster_size 4, groups 2",
        ):  # fmt: skip
            assert number in text, number
        assert [one for one in form.said if one == "123"], "records of train"


def test_the_sections_are_those_of_the_paper_and_both_forms_have_all(facts):
    page, marked = shown(facts)
    titles = [section.title for section in model_card(facts).sections]
    assert titles == [
        "Summary", "Model details", "Intended use", "Factors", "Metrics",
        "Training and evaluation data", "Quantitative analyses", "Ethical considerations",
        "Caveats and recommendations", "How to load it", "Configuration",
    ]  # fmt: skip
    # Apart from the tiles, each text and cell of one is in the other, in the same order.
    start = [one.said.index("Model details") for one in (page, marked)]
    captions = ("All videos'", "On the diagonal")
    assert [t for t in page.said[start[0] :] if not t.startswith(captions)] == (
        marked.said[start[1] :]
    )


def test_a_name_that_would_be_a_script_is_text(facts):
    page, marked = shown(facts)
    for form in (page, marked):
        assert EVIL in form.said
        assert "script" not in form.tags
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|@import|url\((?!#)',
                          as_html(model_card(facts)))  # fmt: skip


def test_what_is_not_the_default_comes_first_and_all_below(facts):
    markdown = as_markdown(model_card(facts)).partition("## Configuration")[2]
    changed, every = markdown.split("### All parameters")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", changed, re.M))
    assert rows == {
        "data.max_frames": "77",
        "training.epochs": "3",
        "training.batch_size": "41",
        "export.top_k": "7",
        **{f"model.{name}": str(value) for name, value in TINY_MODEL.items()},
    }
    all_rows = dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", every, re.M))
    assert all_rows.items() >= rows.items()
    names = {f"{s}.{n}" for s, values in Config().as_dict().items() for n in values}
    # The gate's threshold is not told to the export: the card must not state a default for it.
    assert set(all_rows) == names - {"evaluation.min_gap"}


def limits(facts):
    section = next(s for s in model_card(facts).sections if s.title.startswith("Caveats"))
    return dict(section.parts[0].items)


def test_limits_are_those_of_the_model_and_its_data(facts):
    of_release = limits(facts)
    assert (
        "of 6 classes 2 without any label in validate, 2 with fewer than 5"
        in (of_release["Rare classes"])
    )
    assert "first 77 seconds" in of_release["Length"]
    assert "0.076" in of_release["Scores"] or "0.077" in of_release["Scores"]
    assert of_release["Labels"].startswith("the labels of whole videos were made by machine")
    assert "Segments" in of_release
    assert "Whole videos" not in of_release

    mine = dataclasses.replace(facts.manifest, source="/mine")
    of_folder = limits(dataclasses.replace(facts, manifest=mine))
    assert of_folder["Labels"].startswith("if they are YouTube-8M's, ")

    sample = dataclasses.replace(facts.manifest, source="sample", oracle="/o.csv")
    of_sample = limits(dataclasses.replace(facts, manifest=sample))
    assert "of no use on videos" in of_sample["Generated data"]
    assert "Labels" not in of_sample
    text = as_markdown(model_card(dataclasses.replace(facts, manifest=sample)))
    assert "CC BY" not in text

    unknown = facts.evaluation | {"champion_vocabulary_known": False}
    assert "Champion" in limits(dataclasses.replace(facts, evaluation=unknown))


def test_a_card_of_a_model_of_segments(facts):
    trained = facts.trained | {"data": facts.trained["data"] | {"segments": True}}
    scores = {"gap": 0.8765, "map": 0.6789, "pairs": 99, "positives": 50}
    evaluation = {k: v for k, v in facts.evaluation.items() if k != "slices"} | {
        "headline": "average precision", "metrics": {"model": scores}, "differences": {},
    }  # fmt: skip
    card = dataclasses.replace(facts, trained=trained, evaluation=evaluation)
    text = as_markdown(model_card(card))
    for words in ("0.8765", "0.6789", "MAP@100,000", "the rated segments alone"):
        assert words in text
    assert "Hit@1" not in text
    assert "Whole videos" in limits(card)


def test_a_plain_export_has_no_line_of_what_was_not_made(facts):
    export = {k: v for k, v in facts.export.items() if k not in ("float16", "onnx")}
    text = as_markdown(model_card(dataclasses.replace(facts, export=export)))
    assert "cost of float16" not in text
    assert "onnxruntime" not in text


def test_an_evaluation_of_other_data_is_refused(facts, tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps({"data_fingerprint": "0123"}))
    with pytest.raises(InputError, match=r"evaluation\.json: is of the data 0123, expected"):
        read_evaluation(tmp_path, facts.manifest)


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_the_card_in_a_browser(facts, tmp_path, width, dark):
    path = tmp_path / "model_card.html"
    path.write_text(as_html(model_card(facts)), encoding="utf-8")
    seen = look(path, width, tmp_path, dark)
    assert seen.width <= seen.window
    assert (seen.resources, seen.drawings, seen.dark, seen.complaints) == (0, 2, dark, [])


def test_layers_say_their_sizes(facts):
    markdown = as_markdown(model_card(facts))
    row = re.search(r"\| `classifier` \| Dense \| ([\d,]+) \| (.*) \|", markdown)
    assert int(row[1].replace(",", "")) == np.prod((16, 12)) + 12
    assert "units 12" in row[2]
