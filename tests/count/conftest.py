"""What tests of counting share."""

import plain_smears
import pytest


@pytest.fixture(scope="module")
def plain_is_fit():
    """Photographs of one grey are taken for fit, see `plain_smears.take_for_fit`."""
    with pytest.MonkeyPatch.context() as patched:
        plain_smears.take_for_fit(patched)
        yield
