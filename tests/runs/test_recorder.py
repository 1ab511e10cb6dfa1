"""The schedule of the learning rate; what is kept on disk is tested where networks are trained."""

import random

import numpy as np
import pytest

from wbc_helpers.runs import recorder
from wbc_helpers.runs.backend import keras


def test_the_rate_warms_up_over_a_tenth_and_falls_to_a_hundredth():
    rate = recorder.warm_cosine(0.01, 1000)
    values = [float(rate(step)) for step in (0, 50, 100, 550, 1000, 2000)]
    # From a twentieth, halfway up, the top, halfway down, and the end, which lasts.
    assert values == pytest.approx([0.0005, 0.00525, 0.01, 0.00505, 0.0001, 0.0001], rel=1e-4)


def test_a_training_of_one_step_has_a_rate():
    assert np.isfinite(float(recorder.warm_cosine(0.01, 1)(0)))


def test_first_weights_do_not_depend_on_what_other_threads_draw():
    def first_weights(disturb):
        with recorder.seeded(7):
            disturb()
            return keras.initializers.get("glorot_uniform")((4, 4))

    calm, disturbed = first_weights(lambda: None), first_weights(random.random)
    assert np.array_equal(calm, disturbed)
    keras.utils.set_random_seed(7)
    # The same as without: weights that were drawn before are drawn again.
    plain = keras.initializers.get("glorot_uniform")((4, 4))
    with recorder.seeded(7):
        assert np.array_equal(plain, keras.initializers.get("glorot_uniform")((4, 4)))
