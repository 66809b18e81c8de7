"""Features are of the video alone, however it is batched and whoever is beside it."""

import numpy as np
import pytest

from components.extract_features.decoder_process import Limits
from components.extract_features.features import Networks, Pace, Refused, features_of
from components.extract_features.media import Media
from components.extract_features.sampling import Sampling
from tests.components.extract_features.conftest import NETWORKS
from trainer.feature_networks import log_mel
from trainer.feature_networks.bilinear import resize
from trainer.feature_networks.log_mel import SAMPLE_RATE


def directly(path):
    """A video's features one after the other, without processes, threads and batches."""
    media, met = Media(str(path)), Sampling()
    frames = [resize(image, half_pixel_centers=True) for image in media.images(300, met)]
    sound, _ = media.samples(len(frames), media.start)
    if not len(sound):
        sound = np.zeros(len(frames) * SAMPLE_RATE, np.float32)
    patches = log_mel.patches(sound, len(frames))
    rgb = [NETWORKS.rgb(frame[None])[0] for frame in frames]
    return np.stack(rgb), np.stack([NETWORKS.audio(patch[None])[0] for patch in patches])


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "decoders"), [(1, 3), (3, 1), (64, 2)])
def test_batches_and_processes_change_nothing(clips, batch_size, decoders):
    paths = [str(path) for path in sorted(clips.glob("*.mp4"))]
    found = list(features_of(paths, NETWORKS, Limits(), Pace(batch_size, decoders)))
    for path, one in zip(paths, found, strict=True):
        rgb, audio = directly(path)
        np.testing.assert_allclose(one.rgb, rgb, rtol=1e-5)
        np.testing.assert_allclose(one.audio, audio, rtol=1e-5)
        assert one.facts["frames"] == len(one.rgb) == len(one.audio)
        assert one.facts["has_audio"] == (not path.endswith("2.mp4"))


def test_a_video_that_is_refused_takes_nothing_from_the_others(clips, tmp_path):
    good = sorted(clips.glob("*.mp4"))[:3]
    (tmp_path / "text.mp4").write_text("no video")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(b"")
    paths = [good[0], tmp_path / "text.mp4", good[1], cut, good[2]]
    found = list(features_of([str(p) for p in paths], NETWORKS, Limits(), Pace(2, 2)))
    assert [isinstance(one, Refused) for one in found] == [False, True, False, True, False]
    assert found[3].reason == "is empty"
    alone = list(features_of([str(good[2])], NETWORKS, Limits(), Pace(2, 2)))
    np.testing.assert_array_equal(found[4].rgb, alone[0].rgb)


def test_frames_are_shown_as_they_come(clips):
    seen = []
    path = str(sorted(clips.glob("*.mp4"))[0])
    list(features_of([path, path], NETWORKS, Limits(), Pace(2, 2), lambda *one: seen.append(one)))
    frames = len(seen) // 2
    assert [place for place, _ in seen] == [0] * frames + [1] * frames
    assert seen[0][1].shape == (299, 299, 3)


def test_an_error_of_a_network_is_not_a_refused_video(clips):
    def broken(frames):
        raise RuntimeError("out of memory")

    networks = Networks(NETWORKS.rgb, broken)
    paths = [str(path) for path in sorted(clips.glob("*.mp4"))]
    with pytest.raises(RuntimeError, match="out of memory"):
        list(features_of(paths, networks, Limits(), Pace(2, 2)))
