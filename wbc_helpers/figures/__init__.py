"""Every drawing, in one style.

Results that were computed before come in, a figure goes out: drawn anew, or on `ax` where one axes
is enough (in a figure of yours with `layout="constrained"`, so that nothing is cut off); none is
shown. A cell type has the colour and the marker that `cells` gives it, and titles say how many
images are behind a figure. A table without rows, or without a column that is drawn, is refused
with `InvalidParameter`. It may import every room but `pipeline`.
"""

# ruff: noqa: F401 -- the names under which notebooks draw

from wbc_helpers.figures.images import (
    MOST_DOUBTFUL,
    black_corners,
    boxed_cells,
    brightness_and_colour,
    class_balance,
    doubtful_labels,
    located_cells,
    mean_and_std,
    mean_and_std_by_type,
    montage,
    montage_by_type,
    occlusion,
    where_it_looks,
)
from wbc_helpers.figures.scores import (
    accuracy_by_seconds,
    bland_altman,
    conformal_coverage,
    confusion,
    detection_curves,
    detector_loss,
    differential,
    learning_curves,
    mistakes,
    paper_beside_ours,
    per_class_scores,
    precision_recall_curves,
    reliability_diagram,
    risk_coverage,
    roc_curves,
    score_intervals,
    validation_beside_test,
)
from wbc_helpers.figures.style import STYLE, WIDTH
