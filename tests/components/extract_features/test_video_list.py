"""Lists of videos in all their forms, and every row that is none."""

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.extract_features.video_list import SUFFIXES, Video, read_video_list
from trainer.errors import InputError
from trainer.record_format import LONGEST_ID
from trainer.vocabulary import Vocabulary

# The emulator of Cloud Storage has threads that may draw from `random` while Hypothesis does.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

THREE = Vocabulary(("Cat", "Dog", "Fish"), (("Pets",),) * 3)


@pytest.fixture
def listed(tmp_path):
    """Reads a list of this content, text or bytes."""

    def read(content, vocabulary=None, share=0.2):
        path = tmp_path / "videos.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_video_list(str(path), vocabulary, share)

    return read


def refused(read, content, *words, vocabulary=None):
    with pytest.raises(InputError) as caught:
        read(content, vocabulary)
    assert "\n" not in str(caught.value)
    for word in ("videos.csv", *words):
        assert word in str(caught.value)


def test_rows_by_hand(listed, tmp_path):
    found = listed(
        "video,labels,split,id\n"
        "a.mp4,2;0,train,first\n"
        "sub/b.mp4,1,validate,\n"
        "/else/where.mkv,,,\n"
        "gs://bucket/folder/c.webm,0,test,\n"
    )
    assert found.videos == (
        Video(str(tmp_path / "a.mp4"), "first", (0, 2), "train"),
        Video(str(tmp_path / "sub/b.mp4"), "b", (1,), "validate"),
        Video("/else/where.mkv", "where", (), "test"),
        Video("gs://bucket/folder/c.webm", "c", (0,), "test"),
    )
    assert found.vocabulary == Vocabulary.of_indices(3)


@pytest.mark.parametrize(
    "content",
    [
        "a.mp4,1\nb.mp4,0\n",
        "video,labels\na.mp4,1\nb.mp4,0\n",
        " Video , LABELS \n a.mp4 , 1 \n b.mp4 , 0 \n",
        "\ufeffvideo,labels\na.mp4,1\nb.mp4,0\n",
        "\ufeffa.mp4,1\nb.mp4,0",
        '"a.mp4","1"\r\n"b.mp4","0"\r\n',
        "a.mp4,1\rb.mp4,0\r",
        "\n\na.mp4,1\n , \n\nb.mp4,0\n\n",
        "video,id,labels\na.mp4,a,1\nb.mp4,,0\n",
        "video,labels,split\na.mp4,1;1\nb.mp4,;0;,\n",
    ],
)
def test_forms_of_a_list_that_say_the_same(content, listed):
    videos = listed(content).videos
    assert [(video.video_id, video.labels) for video in videos] == [("a", (1,)), ("b", (0,))]


def test_names_with_commas_quotes_and_spaces(listed, tmp_path):
    (video,) = listed('"a, ""b"" c.mp4","Cat"\n', THREE).videos
    assert video.uri == str(tmp_path / 'a, "b" c.mp4')
    assert video.video_id == 'a, "b" c'


def test_a_source_of_one_column(listed):
    assert [video.labels for video in listed("a.mp4\nb.mp4\n").videos] == [(), ()]
    assert {video.split for video in listed("a.mp4\nb.mp4\n").videos} == {"test"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["no videos"]),
        ("\n\n", ["no videos"]),
        ("video,labels\n", ["no videos"]),
        ("video,label\na.mp4,1\n", ["column 'label'", "did you mean labels?"]),
        ("video,labels,labels\na.mp4,1,1\n", ["has a column twice"]),
        ("a.mp4,1\nb.mp4,1,2\n", ["row 2", "has 3 columns, expected 2"]),
        ("a.mp4,1\n,2\n", ["row 2", "names no video"]),
        ("video,split\na.mp4,training\n", ["row 2", "split is 'training'"]),
        ("video,split\na.mp4,Train\n", ["row 2", "split is 'Train'"]),
        ("video,id\na.mp4,x\nb.mp4,x\n", ["row 3", "'x' is there already", "row 2"]),
        ("a.mp4\nb.mp4\na.mp4\n", ["row 3", "a.mp4 is there already", "row 1"]),
        ("video,id\na.mp4,b\nb.mp4,\n", ["row 3", "'b' is there already"]),
        (f"video,id\na.mp4,{'é' * 33}\n", ["row 2", "longer than 64 bytes"]),
        ("a.mp4," + "9" * 5000 + "\n", ["row 1", "no index of a class"]),
        ("a.mp4,9999999\n", ["row 1", "no index of a class"]),
        ("a.mp4\nb\0.mp4\n", ["row 2", "zero byte"]),
        (b"\xff\xfea\0.\0m\0p\x004\0", ["expected a CSV file in UTF-8"]),
        (b"caf\xe9.mp4,1\n", ["expected a CSV file in UTF-8"]),
        ('"' + "a" * 200_000 + '"\n', ["expected a CSV file", "field larger"]),
    ],
)
def test_rows_that_are_none(content, words, listed):
    refused(listed, content, *words)


def test_a_path_of_no_name_is_still_a_row(listed):
    assert listed("/\na.mp4\n").videos[0].uri == "/"


def test_labels_by_name_and_by_index(listed):
    assert [v.labels for v in listed("a.mp4,Dog\nb.mp4,Fish;Cat\n", THREE).videos] == [(1,), (0, 2)]
    assert [v.labels for v in listed("a.mp4,1\nb.mp4,2;0\n", THREE).videos] == [(1,), (0, 2)]
    assert listed("a.mp4,1\n", THREE).vocabulary is THREE


def test_names_without_a_vocabulary_make_one(listed):
    found = listed("a.mp4,Zebra;Cat\nb.mp4,Ant\nc.mp4,Cat\n")
    assert found.vocabulary.names == ("Ant", "Cat", "Zebra")
    assert [video.labels for video in found.videos] == [(1, 2), (0,), (1,)]


def test_a_number_among_names_is_a_name(listed):
    found = listed("a.mp4,Cat\nb.mp4,101\n")
    assert found.vocabulary.names == ("101", "Cat")
    assert [video.labels for video in found.videos] == [(1,), (0,)]


def test_no_labels_at_all(listed):
    found = listed("a.mp4\n")
    assert found.vocabulary.num_classes == 1
    assert listed("a.mp4\n", THREE).vocabulary is THREE


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("Fissh", ["row 1", "'Fissh' is none of the 3 classes", "did you mean Fish?"]),
        ("dog", ["row 1", "did you mean Dog?"]),
        ("3", ["row 1", "'3' is none of the 3 classes"]),
        ("-1", ["row 1", "'-1' is none"]),
        ("1.0", ["row 1", "'1.0' is none"]),
        ("Cat,Dog", ["row 1", "has 3 columns", "joined by ;"]),
    ],
)
def test_labels_that_no_class_has(label, words, listed):
    refused(listed, f"a.mp4,{label}\n", *words, vocabulary=THREE)


def test_a_name_of_two_classes_is_no_label(listed):
    twice = Vocabulary(("Cat", "Cat", "Dog"), (("Pets",),) * 3)
    refused(listed, "a.mp4,Cat\n", "'Cat' is none of the 3 classes", vocabulary=twice)
    assert listed("a.mp4,Dog\n", twice).videos[0].labels == (2,)


def many(count, first=0):
    return "".join(f"video{k}.mp4,{k % 5}\n" for k in range(first, first + count))


def validated(found):
    return {video.video_id for video in found.videos if video.split == "validate"}


def test_the_share_of_validation(listed):
    assert len(validated(listed(many(2000)))) == pytest.approx(400, abs=60)
    assert len(validated(listed(many(2000), share=0.5))) == pytest.approx(1000, abs=90)
    assert not validated(listed(many(2000), share=0))


def test_a_video_stays_in_its_split_when_others_come(listed):
    few, more = listed(many(200, 50)), listed(many(400))
    known = {video.video_id: video.split for video in few.videos}
    assert known == {v.video_id: v.split for v in more.videos if v.video_id in known}
    shuffled = "".join(reversed(many(200, 50).splitlines(keepends=True)))
    assert validated(listed(shuffled)) == validated(few)


@pytest.mark.parametrize("count", range(2, 9))
@pytest.mark.parametrize("share", [0.01, 0.2, 0.99])
def test_few_videos_fall_on_both_sides(count, share, listed):
    splits = {video.split for video in listed(many(count), share=share).videos}
    assert splits == {"train", "validate"}


def test_one_video_is_not_divided(listed):
    assert [video.split for video in listed("b.mp4,1\n", share=0.01).videos] == ["train"]


def test_splits_that_are_given_stay(listed):
    content = "video,labels,split\na.mp4,1,validate\nb.mp4,,train\nc.mp4,1,test\nd.mp4,1,\n"
    found = listed(content, share=0.0)
    assert [video.split for video in found.videos] == ["validate", "train", "test", "train"]


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_shares_that_are_none(share, listed):
    with pytest.raises(InputError, match="validate_share is"):
        listed("a.mp4,1\n", share=share)


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["/x/a.mp4", "/x/b.mp4"], ["a", "b"]),
        (["/x/1/a.mp4", "/x/2/a.mp4"], ["1/a", "2/a"]),
        (["/x/1/a.mp4", "/x/2/b.mp4", "/y/1/a.mp4"], ["x/1/a", "x/2/b", "y/1/a"]),
        (["/x/a.mp4", "/x/a.mkv"], ["a.mp4", "a.mkv"]),
        (["gs://one/a.mp4", "gs://two/a.mp4"], ["one/a", "two/a"]),
        (["/x/a.b.mp4", "/x/a.c.mp4"], ["a.b", "a.c"]),
        (["/x/.hidden", "/x/none"], [".hidden", "none"]),
    ],
)
def test_ids_are_the_shortest_ends_that_differ(paths, ids, listed):
    found = listed("".join(f"{path}\n" for path in paths))
    assert [video.video_id for video in found.videos] == ids


def test_long_ids_keep_their_end_and_differ(listed):
    paths = [f"/x/{'é' * 60}{k}.mp4" for k in range(20)] + [f"/x/{k}{'z' * 90}.mp4" for k in "ab"]
    ids = [video.video_id for video in listed("".join(f"{path}\n" for path in paths)).videos]
    assert len(set(ids)) == len(paths)
    assert all(len(one.encode()) <= LONGEST_ID for one in ids)
    assert ids[7].endswith("é7")
    assert ids[-1].endswith("zzz")


def test_a_folder_gives_all_videos_below_it(tmp_path):
    for name in ("b.MP4", "a/x.mkv", "a/notes.txt", "a/deep/y.webm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = read_video_list(str(tmp_path))
    assert [(Path(v.uri).name, v.video_id, v.labels, v.split) for v in found.videos] == [
        ("y.webm", "y", (), "test"), ("x.mkv", "x", (), "test"), ("b.MP4", "b", (), "test"),
    ]  # fmt: skip


def test_a_folder_without_videos(tmp_path):
    with pytest.raises(InputError, match="has no videos, expected files that end with one of"):
        read_video_list(str(tmp_path))


def test_a_name_that_is_not_in_utf_8(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    with open(name, "wb"):
        pass
    with pytest.raises(InputError, match="its name is not in UTF-8"):
        read_video_list(str(tmp_path))


def test_names_of_all_languages(tmp_path):
    for name in ("猫 🐈.mp4", "é e\u0301.mp4", "👩\u200d🚀.mp4"):
        (tmp_path / name).write_bytes(b"")
    ids = {video.video_id for video in read_video_list(str(tmp_path)).videos}
    assert ids == {"猫 🐈", "é e\u0301", "👩\u200d🚀"}


def test_one_file_gives_itself(tmp_path):
    path = tmp_path / "any.name"
    path.write_bytes(b"")
    (video,) = read_video_list(str(path)).videos
    assert video == Video(str(path), "any", (), "test")


@pytest.mark.parametrize("name", ["absent", "absent.mp4", "absent.csv"])
def test_what_is_not_there(name, tmp_path):
    with pytest.raises(InputError, match=f"{name}: no such file"):
        read_video_list(str(tmp_path / name))


def test_a_folder_that_is_named_like_a_list(tmp_path):
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(InputError, match="no such file"):
        read_video_list(str(tmp_path / "x.csv"))


def test_another_scheme():
    with pytest.raises(InputError, match="found the scheme http://"):
        read_video_list("http://example.com/a.mp4")


def test_a_bucket(bucket):
    for name in ("in/a.mp4", "in/deep/b.MKV", "in/notes.txt", "in/folder.mp4/", "inside/c.mp4"):
        bucket.blob(name).upload_from_string(b"x")
    for source in ("gs://data/in", "gs://data/in/"):
        found = read_video_list(source).videos
        assert found == (
            Video("gs://data/in/a.mp4", "a", (), "test"),
            Video("gs://data/in/deep/b.MKV", "b", (), "test"),
        )
    (alone,) = read_video_list("gs://data/in/a.mp4").videos
    assert alone.uri == "gs://data/in/a.mp4"
    bucket.blob("lists/v.csv").upload_from_string("a.mp4,1\n/b.mp4,0\ngs://other/c.mp4,0\n")
    found = read_video_list("gs://data/lists/v.csv").videos
    assert [video.uri for video in found] == [
        "gs://data/lists/a.mp4", "/b.mp4", "gs://other/c.mp4",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"gs://data/lists/absent\.csv: no such object"):
        read_video_list("gs://data/lists/absent.csv")
    with pytest.raises(InputError, match="has no videos"):
        read_video_list("gs://data/nothing")
    with pytest.raises(InputError, match="gs://absent"):
        read_video_list("gs://absent/in")


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters='\0/\\:', exclude_categories=["Cc", "Cs", "Z"]),
    min_size=1, max_size=12,
).filter(lambda name: name not in (".", "..") and name.lower() != "video")  # fmt: skip
LABEL = st.text(st.characters(codec="utf-8", categories=["L", "P"], exclude_characters=";\0"),
                min_size=1, max_size=8)  # fmt: skip
ROWS = st.lists(
    st.tuples(
        NAMES, st.lists(LABEL, max_size=4), st.sampled_from(["", "train", "validate", "test"])
    ),
    min_size=1, max_size=12, unique_by=lambda row: row[0],
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), bom=st.booleans())
def test_a_list_survives_a_round_trip(rows, quoting, bom, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "round.csv"
    text = io.StringIO(newline="")
    table = csv.writer(text, quoting=quoting)
    table.writerow(["video", "labels", "split", "id"])
    for k, (name, labels, split) in enumerate(rows):
        table.writerow([f"/x/{name}", ";".join(labels), split, f"id{k}"])
    path.write_text(text.getvalue(), encoding="utf-8-sig" if bom else "utf-8", newline="")
    found = read_video_list(str(path))
    names = found.vocabulary.names
    for k, ((name, labels, split), video) in enumerate(zip(rows, found.videos, strict=True)):
        assert video.uri == f"/x/{name}"
        assert video.video_id == f"id{k}"
        assert {names[index] for index in video.labels} == set(labels)
        assert video.split == split or (not split and video.split != "test") or not labels


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=60) | st.text('a.;,"\n\r0', max_size=40).map(str.encode))
def test_any_bytes_are_a_list_or_one_reason(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        videos = read_video_list(str(path)).videos
    except InputError as error:
        words = str(error)
    else:
        words = ""
        assert len({video.video_id for video in videos}) == len(videos)
    assert "Traceback" not in words


def test_suffixes_are_lower_case():
    assert all(suffix == suffix.lower() for suffix in SUFFIXES)
