"""Films: every picture is in it, at the right rate, in its own colours, and a film is complete or not there."""

import inspect
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageSequence

from perception.core import DataError, MissingPackage, UsageError
from perception.visual import CLASS_COLORS, save_animation


def pictures(count=5, size=(120, 80), colors=None):
    """A square that moves by 10 px a picture over paper."""
    for k in range(count):
        image = Image.new("RGB", size, (252, 252, 250))
        ImageDraw.Draw(image).rectangle((10 * k, 20, 10 * k + 20, 50), fill=(0, 90, 160) if colors is None else colors[k])
        yield image


def read_mp4(path: Path) -> tuple[dict, list[np.ndarray]]:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    reader = ffmpeg.read_frames(str(path))
    about = next(reader)
    width, height = about["size"]
    return about, [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


@pytest.mark.parametrize("fps", [1.0, 4.0, 12.0, 30.0])
def test_a_gif_has_every_picture_and_lasts_as_long_as_the_rate_says(tmp_path, fps):
    assert save_animation(pictures(9), tmp_path / "a.gif", fps=fps) == 9
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 9
        assert film.size == (120, 80)
        assert film.info["loop"] == 0  # for ever
        duration = sum(frame.info["duration"] for frame in ImageSequence.Iterator(film))
    assert duration == pytest.approx(9 / fps * 1000, abs=10)  # milliseconds; a GIF counts hundredths of seconds


def test_each_class_keeps_its_colour_in_a_gif_even_if_it_first_shows_up_late(tmp_path):
    colors = list(CLASS_COLORS.values())
    save_animation(pictures(len(colors), colors=colors), tmp_path / "a.gif", fps=2)
    with Image.open(tmp_path / "a.gif") as film:
        for k, frame in enumerate(ImageSequence.Iterator(film)):
            seen = np.asarray(frame.convert("RGB"))[35, 10 * k + 10].astype(int)
            assert np.abs(seen - colors[k]).max() <= 12, f"picture {k}: {seen} for {colors[k]}"


def test_a_gif_shows_what_the_pictures_show(tmp_path):
    save_animation(pictures(4), tmp_path / "a.gif", fps=2)
    with Image.open(tmp_path / "a.gif") as film:
        for frame, picture in zip(ImageSequence.Iterator(film), pictures(4), strict=True):
            assert np.abs(np.asarray(frame.convert("RGB")).astype(int) - np.asarray(picture)).max() <= 24  # inks come in steps of opacity


def test_an_mp4_has_every_picture_at_the_right_rate(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    assert save_animation(pictures(6), tmp_path / "a.mp4", fps=5.0) == 6
    about, frames = read_mp4(tmp_path / "a.mp4")
    assert about["fps"] == 5.0
    assert len(frames) == 6
    for frame, picture in zip(frames, pictures(6), strict=True):
        assert np.abs(frame.astype(int) - np.asarray(picture)).mean() < 6  # of 255: the square is where it was, H.264 blurs its edge


def test_odd_sides_give_an_mp4_too(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    save_animation(pictures(3, size=(121, 81)), tmp_path / "a.mp4", fps=5.0)
    about, frames = read_mp4(tmp_path / "a.mp4")
    assert len(frames) == 3
    assert all(abs(side - wanted) <= 1 for side, wanted in zip(about["size"], (121, 81), strict=True))


def fail_after(count):
    yield from pictures(count)
    raise RuntimeError("the drive broke off")


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
@pytest.mark.parametrize("existed", [True, False], ids=["over an old film", "a new film"])
def test_a_film_that_breaks_off_leaves_the_old_state(tmp_path, suffix, existed):
    if suffix == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / f"a.{suffix}"
    if existed:
        path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="the drive broke off"):
        save_animation(fail_after(3), path, fps=2)
    assert [p.name for p in tmp_path.iterdir()] == ([path.name] if existed else [])
    assert not existed or path.read_bytes() == b"old"


def test_ffmpeg_has_ended_and_its_folder_is_gone_when_a_film_breaks_off(tmp_path, monkeypatch):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    writers, write_frames = [], ffmpeg.write_frames

    def watched(*arguments, **options):
        writers.append(write_frames(*arguments, **options))
        return writers[-1]

    monkeypatch.setattr(ffmpeg, "write_frames", watched)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match="the drive broke off"):
        save_animation(fail_after(3), tmp_path / "a.mp4", fps=2)
    assert [inspect.getgeneratorstate(writer) for writer in writers] == ["GEN_CLOSED"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_no_pictures_are_an_error_and_no_film(tmp_path, suffix):
    if suffix == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(DataError, match=rf"a\.{suffix}: expected at least one picture, got none"):
        save_animation([], tmp_path / f"a.{suffix}", fps=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_pictures_of_different_size_are_an_error_and_no_film(tmp_path, suffix):
    if suffix == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    mixed = [*pictures(2), *pictures(1, size=(100, 80))]
    with pytest.raises(DataError, match=r"expected pictures of one size, 120 x 80, got 100 x 80"):
        save_animation(mixed, tmp_path / f"a.{suffix}", fps=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.avi", "a", "a.png"])
def test_another_ending_is_refused_before_anything_is_drawn(tmp_path, name):
    def never():
        raise AssertionError("drawn")
        yield

    with pytest.raises(UsageError, match=r"expected a name ending in \.gif or \.mp4, got"):
        save_animation(never(), tmp_path / name)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_not_positive_is_refused(tmp_path, fps):
    with pytest.raises(UsageError, match="expected frames a second > 0, got"):
        save_animation(pictures(), tmp_path / "a.gif", fps=fps)


def test_without_ffmpeg_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingPackage, match=r"perception\[viz\]"):
        save_animation(pictures(), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
