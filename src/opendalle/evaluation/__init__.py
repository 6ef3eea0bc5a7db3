"""What a picture is worth: judge, rule detectors for scenes, metrics with intervals, and the protocols' runner."""
