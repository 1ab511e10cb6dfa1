"""The schedule of the learning rate; what is kept on disk is tested where networks are trained."""

import numpy as np
import pytest

from wbc_helpers.runs import recorder


def test_the_rate_warms_up_over_a_tenth_and_falls_to_a_hundredth():
    rate = recorder.warm_cosine(0.01, 1000)
    values = [float(rate(step)) for step in (0, 50, 100, 550, 1000, 2000)]
    # From a twentieth, halfway up, the top, halfway down, and the end, which lasts.
    assert values == pytest.approx([0.0005, 0.00525, 0.01, 0.00505, 0.0001, 0.0001], rel=1e-4)


def test_a_training_of_one_step_has_a_rate():
    assert np.isfinite(float(recorder.warm_cosine(0.01, 1)(0)))
