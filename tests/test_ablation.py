"""The ablation's rows: each network that is trained for one can be asked, too."""

import ablation
import numpy as np
import pytest

from wbc_helpers import models
from wbc_helpers.recipes import RECIPES


@pytest.mark.slow
@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_every_row_can_be_answered(name):
    with ablation.VARIANTS[name]():
        height, width = RECIPES["compact"].image_size
        network = models.build("compact", (height, width), None)
        shown = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        told = models.answer("compact", network, shown)
    np.testing.assert_allclose(told.sum(axis=1), [1, 1], rtol=1e-5)
