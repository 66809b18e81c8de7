"""What a model card says in sentences: use, metrics, ethics, limits."""

from __future__ import annotations

from typing import Any

from components.download.plan import is_release
from components.evaluate.report import FEWEST_POSITIVES
from components.export.card_facts import CardFacts
from trainer import records

USE = (
    ("For", "annotating videos with topics, ranking and retrieval by topic, and research on video "
     "classification"),
    ("By", "engineers who extract the features of YouTube-8M from their videos, or have them"),
    ("Not for", "decisions on people: identification, surveillance, moderation without a person "
     "who looks at the video"),
    ("Not for", "raw video or audio, or features of other networks: it reads those of "
     "Inception-v3 and VGGish after YouTube-8M's own PCA and 8-bit quantisation, one of each a "
     "second, and answers to anything else with numbers that mean nothing"),
)  # fmt: skip

_OF_VIDEOS = (
    ("GAP@20", "the 20 best predictions of every video, pooled and ranked by score over the whole "
     "split: the average precision of that list (the metric of the YouTube-8M challenges)"),
    ("mAP", "the mean over classes of average precision: over those that have labels in the split "
     "and, named so, over all classes, where one without labels counts 0"),
    ("Hit@1", "share of the videos whose best prediction is a label"),
    ("PERR", "of as many predictions as a video has labels, the share that is right, averaged over "
     "videos"),
)  # fmt: skip
_OF_SEGMENTS = (
    ("Average precision", "of all pairs of a segment and a class that people rated, ranked by "
     "score in one list"),
    ("MAP@100,000", "the mean over classes of the average precision of each one's 100,000 best "
     "segments (the metric of the third YouTube-8M challenge)"),
)  # fmt: skip
_OF_BOTH = (
    ("Calibration error", "mean distance between a score and the share of predictions of that "
     "score that is right"),
    ("Interval", "of the bootstrap over videos: how far the number would move with other videos of "
     "the same kind; other seeds of the training are not in it"),
)  # fmt: skip

ETHICS = (
    ("Labels", "in YouTube-8M are what a machine said of videos that people had uploaded; its "
     "mistakes and its choice of topics are learned with the rest"),
    ("People", "no attribute of a person is among what was measured, so nothing is known of how "
     "quality differs between groups of people, languages or regions"),
    ("Privacy", "features hold no image and no sound, though more can be told from them than "
     "topics; the ids in YouTube-8M are not those of the videos, but can be looked up"),
)  # fmt: skip


def metrics(evaluation: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """What the metrics are that an evaluation has."""
    return (*(_OF_VIDEOS if "slices" in evaluation else _OF_SEGMENTS), *_OF_BOTH)


def limits(facts: CardFacts) -> list[tuple[str, str]]:
    """Honest ones, with the numbers of this model."""
    manifest, evaluation = facts.manifest, facts.evaluation
    positives = [int(row["positives"]) for row in facts.classes]
    none = sum(count == 0 for count in positives)
    few = sum(0 < count < FEWEST_POSITIVES for count in positives)
    error = evaluation["reliability"]["model"]["error"]
    found = [
        ("Rare classes", f"of {len(positives):,} classes {none or 'none'} without any label in "
         f"{evaluation['split']}, {few or 'none'} with fewer than {FEWEST_POSITIVES}: how well "
         "such are known was not measured"),
        ("Other videos", "quality was measured on videos of the kind it was trained on; on others, "
         "of another time, source or length, expect less, and measure it"),
        ("Scores", f"are probabilities as far as the calibration error of {error:.3f} says, on "
         f"{evaluation['split']}, over all classes together; that is no promise for one class or "
         "other data"),
        ("Answers", f"have the {facts.export['top_k']:,} best classes of {len(positives):,}; the "
         "list is closed, and something is always best"),
    ]  # fmt: skip
    if manifest.oracle:
        found.insert(
            0, ("Generated data", "the data are a generated sample that has the form of YouTube-8M "
                "and none of its content: this model proves that the pipeline works, and is of no "
                "use on videos")
        )  # fmt: skip
    elif not facts.trained["data"].get("segments"):
        whose = "" if is_release(manifest.source) else "if they are YouTube-8M's, "
        found.insert(
            0, ("Labels", f"{whose}the labels of whole videos were made by machine and not checked "
                "one by one: some are wrong, more are missing, and the metrics count a right "
                "answer that is not among them as a mistake")
        )  # fmt: skip
    if manifest.level == records.FRAME:
        frames = facts.trained["data"]["max_frames"]
        found.append(
            ("Length", f"of a video the first {frames:,} seconds are read, one frame a second; the "
             "rest is not")
        )  # fmt: skip
        if not facts.trained["data"].get("segments"):
            found.append(
                ("Segments", "the signature for windows of 5 seconds applies what was learned from "
                 "whole videos; its scores there were not measured")
            )  # fmt: skip
        else:
            found.append(
                ("Whole videos", "it was trained and evaluated on rated segments of 5 seconds; its "
                 "scores of whole videos were not measured")
            )  # fmt: skip
    if not evaluation["champion_vocabulary_known"]:
        found.append(
            ("Champion", "whether the champion's classes are the data's is not known: it has no "
             "names to compare")
        )  # fmt: skip
    return found
