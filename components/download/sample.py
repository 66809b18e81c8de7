"""The built-in sample: a small YouTube-8M-shaped data set, learnable and honest.

What a video is here
--------------------
A video has a few *topics* (classes), most of them of one vertical, drawn with the class
frequencies of the real vocabulary. Time is cut into shots. A topic appears in a few shots only;
all the other frames, the majority, are *filler* (title cards, adverts, links to other videos), and
filler shows topics too: other ones, as strongly. What tells filler apart is its editing style, one
of a few directions in feature space that a model has to discover. So the mean over all frames
sees the signatures of topics and of filler side by side and can not know which is which, while a
model that weighs frames before it sums them can.

The ceiling
-----------
A label is a topic seen by an imperfect annotator, who misses the less prominent ones more often
and now and then names something that is not there. Features depend on the latents (topics and the
frames that show them) and never on labels, so nobody who sees features can rank better, in
expectation, than by the probability of each label given the latents themselves: these scores are
written as `oracle.csv`, and their GAP is the data's upper bound.

Everything follows from the seed: equal parameters give equal bytes.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer import records
from trainer.config import SampleConfig
from trainer.prediction import write_predictions
from trainer.vocabulary import COLUMNS

# Videos of the 3,888,919 of the train partition that carry the class of a given frequency rank:
# points of the rank-frequency curve of the public vocabulary (column TrainVideoCount).
_RANKS = (1, 2, 3, 4, 6, 11, 21, 51, 101, 201, 401, 801, 1601, 3001, 3862)
_VIDEOS = (
    788288, 539945, 415890, 378135, 236948, 144667, 75819, 33321, 14920, 7921, 3712, 1520, 578,
    221, 123,
)  # fmt: skip

# Shares of the verticals among the classes of the public vocabulary, most frequent first.
_VERTICALS = (
    ("Games", 843), ("Arts & Entertainment", 528), ("Autos & Vehicles", 466),
    ("Computers & Electronics", 312), ("Food & Drink", 297), ("Business & Industrial", 287),
    ("Science", 216), ("Sports", 206), ("Pets & Animals", 165), ("Shopping", 165),
)  # fmt: skip

TOPICS_OF_A_VIDEO = (0.15, 0.30, 0.30, 0.15, 0.10)
"""Probability of 1, 2, … topics: mean 2.75, where the real data has 3.0 labels a video."""
SAME_VERTICAL = 0.75
"""Probability that a further topic is of the first one's vertical."""
PROMINENCE = (0.04, 0.16)
"""Share of a video's frames that show one topic, uniform between these (at least two frames)."""
FILLER_WITH_TOPIC = 0.35
"""Share of the filler shots that show some topic which is not the video's."""
MISSED_LABEL = (0.30, 0.02)
"""Probability that a topic goes unlabelled, at the lowest and at the highest prominence."""
SPURIOUS_LABEL = 0.06
"""Probability that a video gains a label for something that is not there."""
FILLER_STYLES = 4
SIGNATURE, STYLE = 4.5, 4.0
"""Euclidean length of a topic's signature and of a filler style, in feature units."""
SCENE_NOISE, FRAME_NOISE = 0.20, 0.45
"""Standard deviation of a feature from scene to scene, and from frame to frame."""
SHOT_FRAMES = (2, 6)


@dataclasses.dataclass(frozen=True)
class World:
    """What all videos of a sample share.

    Attributes:
        frequencies: float64 [C], probability of each class as a topic, descending.
        verticals: int64 [C], the vertical of each class.
        signatures: float32 [C, 1152].
        styles: float32 [FILLER_STYLES, 1152].
    """

    frequencies: NDArray[np.float64]
    verticals: NDArray[np.int64]
    signatures: NDArray[np.float32]
    styles: NDArray[np.float32]


def make_world(spec: SampleConfig) -> World:
    rng = np.random.default_rng([spec.seed, 0])
    ranks = np.arange(1, spec.num_classes + 1)
    counts = np.exp(np.interp(np.log(ranks), np.log(_RANKS), np.log(_VIDEOS)))
    shares = np.array([count for _, count in _VERTICALS], np.float64)
    verticals = rng.choice(len(shares), spec.num_classes, p=shares / shares.sum())
    of_vertical = _directions(rng, len(shares))
    signatures = 0.6 * of_vertical[verticals] + 0.8 * _directions(rng, spec.num_classes)
    return World(
        counts / counts.sum(),
        verticals,
        (SIGNATURE * signatures).astype(np.float32),
        (STYLE * _directions(rng, FILLER_STYLES)).astype(np.float32),
    )


def _directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    vectors = rng.standard_normal((count, records.FEATURE_SIZE))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@dataclasses.dataclass(frozen=True)
class Latents:
    """What the generator knows of one video and the features only hint at."""

    topics: NDArray[np.int64]
    frame_topics: NDArray[np.int64]
    """int64 [T]: the topic that each frame shows, the video's own or filler's; −1: none."""
    frame_styles: NDArray[np.int64]
    """int64 [T]: the style of a filler frame, −1 where the frame shows a topic of the video."""


def draw_latents(world: World, spec: SampleConfig, rng: np.random.Generator) -> Latents:
    wanted = _draw_topics(world, rng)
    num_frames = int(rng.integers(spec.min_frames, spec.max_frames + 1))
    shots: list[tuple[int, int, int]] = []
    frames_left = num_frames
    for topic, share in zip(wanted, rng.uniform(*PROMINENCE, len(wanted)), strict=True):
        length = min(max(2, round(share * num_frames)), num_frames)
        # Evidence stays a minority: what would fill half of the video is not shown. The first is.
        if not shots or frames_left - length > num_frames / 2:
            shots.append((int(topic), -1, length))
            frames_left -= length
    topics = np.sort(np.array([topic for topic, _, _ in shots], np.int64))
    others = np.where(np.isin(np.arange(spec.num_classes), topics), 0, world.frequencies)
    while frames_left > 0:
        length = min(int(rng.integers(SHOT_FRAMES[0], SHOT_FRAMES[1] + 1)), frames_left)
        shown = rng.random() < FILLER_WITH_TOPIC and others.any()
        topic = int(rng.choice(spec.num_classes, p=others / others.sum())) if shown else -1
        shots.append((topic, int(rng.integers(FILLER_STYLES)), length))
        frames_left -= length
    order = rng.permutation(len(shots))
    lengths = np.array([shots[i][2] for i in order])
    return Latents(
        topics,
        np.repeat([shots[i][0] for i in order], lengths),
        np.repeat([shots[i][1] for i in order], lengths),
    )


def _draw_topics(world: World, rng: np.random.Generator) -> NDArray[np.int64]:
    count = 1 + int(rng.choice(len(TOPICS_OF_A_VIDEO), p=TOPICS_OF_A_VIDEO))
    topics = [int(rng.choice(len(world.frequencies), p=world.frequencies))]
    for _ in range(count - 1):
        weights = world.frequencies.copy()
        if rng.random() < SAME_VERTICAL:
            weights[world.verticals != world.verticals[topics[0]]] = 0
        weights[topics] = 0
        if weights.sum() > 0:
            topics.append(int(rng.choice(len(weights), p=weights / weights.sum())))
    return np.array(topics, np.int64)


def label_chances(world: World, latents: Latents) -> NDArray[np.float64]:
    """float64 [C]: the chance of each label in one independent draw, given the latents."""
    own = latents.frame_topics[latents.frame_styles < 0]
    prominence = np.bincount(own, minlength=len(world.frequencies)) / len(latents.frame_topics)
    missed = np.interp(prominence[latents.topics], PROMINENCE, MISSED_LABEL)
    annotated = np.zeros_like(world.frequencies)
    annotated[latents.topics] = 1 - missed
    return annotated + (1 - annotated) * SPURIOUS_LABEL * world.frequencies


def draw_labels(chances: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Class indices, ascending: drawn again until there is at least one."""
    while True:
        labels = np.flatnonzero(rng.random(len(chances)) < chances)
        if len(labels):
            return labels


def oracle_scores(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [C]: P(label | latents), exactly: the chances, given that there is a label."""
    return np.asarray(chances / (1 - np.prod(1 - chances)))


def draw_features(world: World, latents: Latents, rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [T, 1152]: signature + style + scene + frame noise, clipped and quantised."""
    num_frames = len(latents.frame_topics)
    features = rng.standard_normal((num_frames, records.FEATURE_SIZE), dtype=np.float32)
    features *= np.float32(FRAME_NOISE)
    shown = latents.frame_topics >= 0
    features[shown] += world.signatures[latents.frame_topics[shown]]
    filler = latents.frame_styles >= 0
    features[filler] += world.styles[latents.frame_styles[filler]]
    look = latents.frame_topics * (FILLER_STYLES + 1) + latents.frame_styles
    shot_starts = np.flatnonzero(np.diff(look, prepend=look[0] - 1))
    scenes = rng.standard_normal((len(shot_starts), records.FEATURE_SIZE), dtype=np.float32)
    features += np.float32(SCENE_NOISE) * np.repeat(
        scenes, np.diff(shot_starts, append=num_frames), axis=0
    )
    return records.quantise(features)


def write_sample(spec: SampleConfig, folder: Path) -> None:
    """Write `train/`, `validate/`, `vocabulary.csv` and `oracle.csv` below `folder`."""
    world = make_world(spec)
    _write_vocabulary(world, folder / "vocabulary.csv")
    for number, (split, count) in enumerate(
        (("train", spec.train_videos), ("validate", spec.validate_videos)), start=1
    ):
        (folder / split).mkdir(parents=True)
        oracle: list[tuple[str, NDArray[np.float64]]] = []
        for shard, start in enumerate(range(0, count, spec.shard_videos)):
            rng = np.random.default_rng([spec.seed, number, shard])
            size = min(spec.shard_videos, count - start)
            videos = _videos(world, spec, rng, split, start, size, oracle)
            records.write_records(folder / split / f"{split}{shard:04d}.tfrecord", videos)
        if split == "validate":
            write_predictions(
                folder / "oracle.csv",
                [video_id for video_id, _ in oracle],
                np.stack([scores for _, scores in oracle]),
            )


def _videos(
    world: World,
    spec: SampleConfig,
    rng: np.random.Generator,
    split: str,
    start: int,
    count: int,
    oracle: list[tuple[str, NDArray[np.float64]]],
) -> Iterator[bytes]:
    """Yield `count` records; append each video's oracle scores to `oracle`."""
    for number in range(start, start + count):
        latents = draw_latents(world, spec, rng)
        codes = draw_features(world, latents, rng)
        video_id = f"{split[0]}{number:06d}"
        chances = label_chances(world, latents)
        oracle.append((video_id, oracle_scores(chances)))
        yield records.encode(
            records.VideoRecord(
                video_id,
                draw_labels(chances, rng),
                codes[:, : records.RGB_SIZE],
                codes[:, records.RGB_SIZE :],
            )
        )


def _write_vocabulary(world: World, path: Path) -> None:
    videos = np.rint(world.frequencies * 1_000_000).astype(int)
    seen: dict[int, int] = {}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for index, vertical in enumerate(world.verticals.tolist()):
            seen[vertical] = seen.get(vertical, 0) + 1
            name = _VERTICALS[vertical][0]
            writer.writerow(
                dict.fromkeys(COLUMNS, "")
                | {
                    "Index": index,
                    "TrainVideoCount": videos[index],
                    "Name": f"{name} {seen[vertical]}",
                    "Vertical1": name,
                }
            )
