"""A frame's steps: sweeps as the detector asks, ego frame to global frame, attributes, tracks."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import perception
from perception.core import UsageError
from perception.pipeline import Pipeline
from perception.tracking import build_tracker
from tests.pipeline.makers import ClumpDetector, SyntheticDrive


def test_a_drive_streams_frame_by_frame_into_tracks():
    drive = SyntheticDrive(num_frames=5)
    pipeline = perception.Pipeline(ClumpDetector(sweeps=2), build_tracker())
    for number, frame in enumerate(drive):
        tracks = pipeline.step(frame)
        order = np.argsort(tracks.boxes.center[:, 0])
        np.testing.assert_allclose(tracks.boxes.center[order], drive.car_positions(number), atol=0.5)
        assert sorted(tracks.track_id.tolist()) == [1, 2, 3]  # the same three cars all along
    np.testing.assert_allclose(tracks.boxes.velocity, np.tile([7.0, 0.0], (3, 1)), atol=1.0)  # over ground, not relative to the ego


def test_reset_begins_another_drive():
    pipeline = Pipeline(ClumpDetector(), build_tracker())
    first = [pipeline.step(frame).track_id.tolist() for frame in SyntheticDrive(num_frames=3)]
    pipeline.reset()
    assert [pipeline.step(frame).track_id.tolist() for frame in SyntheticDrive(num_frames=3)] == first


@pytest.mark.parametrize(("asked", "given", "turns"), [(1, None, 1), (3, None, 3), (3, 2, 2)])
def test_clouds_hold_the_sweeps_that_the_detector_or_the_caller_asks_for(asked, given, turns):
    frame = SyntheticDrive(num_frames=5)[4]
    cloud = Pipeline(ClumpDetector(sweeps=asked), num_sweeps=given).read(frame)
    assert len(np.unique(cloud.points[:, 4])) == turns


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "3"])
def test_a_wrong_number_of_sweeps_is_refused(number):
    with pytest.raises(UsageError, match="num_sweeps: expected 1 or more"):
        Pipeline(ClumpDetector(), num_sweeps=number)


def test_a_detector_may_say_how_old_sweeps_may_be():
    detector = ClumpDetector(sweeps=3)
    frame = SyntheticDrive(num_frames=5)[4]
    everything = Pipeline(detector).read(frame).points
    detector.window = 0.01  # type: ignore[attr-defined]
    assert np.unique(everything[:, 4]).max() > 0.01
    assert np.unique(Pipeline(detector).read(frame).points[:, 4]).tolist() == [0.0]


def test_a_pipeline_without_a_tracker_detects_but_does_not_step():
    frame = SyntheticDrive()[0]
    pipeline = Pipeline(ClumpDetector())
    assert len(pipeline.detect(frame, pipeline.read(frame))) == 3
    with pytest.raises(UsageError, match="expected a tracker"):
        pipeline.step(frame)


def test_detections_get_attributes_by_their_speed():
    frame = SyntheticDrive()[3]
    one, two = (Pipeline(ClumpDetector(), num_sweeps=n) for n in (1, 2))
    assert set(one.detect(frame, one.read(frame)).attribute) == {"vehicle.parked"}  # the speed is unknown
    found = two.detect(frame, two.read(frame))
    assert set(found.attribute) == {"vehicle.moving"}


def test_the_frames_of_a_pipeline_do_not_depend_on_how_far_apart_they_are_asked_for():
    drive = SyntheticDrive(num_frames=4)
    tracked = []
    for frames in (list(drive), (drive[i] for i in range(4)), itertools.chain(drive)):
        pipeline = Pipeline(ClumpDetector(), build_tracker())
        tracked.append([pipeline.step(frame).boxes.center.tolist() for frame in frames])
    assert tracked[0] == tracked[1] == tracked[2]


def test_detectors_see_intensities_up_to_255_whatever_a_recording_holds():
    frame = SyntheticDrive(num_frames=3)[2]
    as_recorded = frame.cloud.points.copy()
    pipeline = Pipeline(ClumpDetector(), num_sweeps=2)
    unchanged = pipeline.read(frame).points
    for top, factor in ((255.0, 1), (1.0, 255), (100.0, 2.55)):
        read = pipeline.read(replace(frame, intensity_top=top)).points
        np.testing.assert_allclose(read[:, 3], unchanged[:, 3] * factor, rtol=1e-6)
        np.testing.assert_array_equal(np.delete(read, 3, axis=1), np.delete(unchanged, 3, axis=1))
    assert unchanged[:, 3].max() > 0
    np.testing.assert_array_equal(frame.cloud.points, as_recorded)  # the recording's own cloud is as it was
