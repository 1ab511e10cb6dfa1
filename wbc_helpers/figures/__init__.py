"""Every drawing, in one style.

Each function takes results that were computed before, draws them on a new figure, or on `ax`
where one axes is enough, and returns the figure; none shows it. A cell type has the colour and
the marker that `cells` gives it, and titles say how many images are behind a figure.

A figure of your own that lends its `ax` should have `layout="constrained"`, so that nothing is
cut off.
"""

from wbc_helpers.figures.cells import (
    MOST_DOUBTFUL,
    doubtful_labels,
    located_cells,
    occlusion,
    where_it_looks,
)
from wbc_helpers.figures.counting import (
    bland_altman,
    boxed_cells,
    detection_curves,
    detector_loss,
    differential,
)
from wbc_helpers.figures.data import (
    accuracy_by_seconds,
    black_corners,
    brightness_and_colour,
    class_balance,
    learning_curves,
    mean_and_std,
    mean_and_std_by_type,
    montage,
    montage_by_type,
)
from wbc_helpers.figures.scores import (
    conformal_coverage,
    confusion,
    confusion_counts_and_rates,
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

__all__ = [
    "MOST_DOUBTFUL",
    "STYLE",
    "WIDTH",
    "accuracy_by_seconds",
    "black_corners",
    "bland_altman",
    "boxed_cells",
    "brightness_and_colour",
    "class_balance",
    "conformal_coverage",
    "confusion",
    "confusion_counts_and_rates",
    "detection_curves",
    "detector_loss",
    "differential",
    "doubtful_labels",
    "learning_curves",
    "located_cells",
    "mean_and_std",
    "mean_and_std_by_type",
    "mistakes",
    "montage",
    "montage_by_type",
    "occlusion",
    "paper_beside_ours",
    "per_class_scores",
    "precision_recall_curves",
    "reliability_diagram",
    "risk_coverage",
    "roc_curves",
    "score_intervals",
    "validation_beside_test",
    "where_it_looks",
]
