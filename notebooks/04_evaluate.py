# ---
# jupyter:
#   accelerator: GPU
#   colab:
#     gpuType: T4
#   jupytext:
#     cell_metadata_filter: tags,cellView,-all
#     notebook_metadata_filter: kernelspec,jupytext,accelerator,colab,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4 · Evaluate: how good is it really, and where does it fail?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/owner/white-blood-cells/blob/main/notebooks/04_evaluate.ipynb)
#
# **At the end** you have the scores of a run on the official test images, its confusions, its
# curves and its worst mistakes, beside what the paper reports.
#
# **Time and hardware:** two minutes on two CPU cores. Where you have trained nothing yet, the network
# that ships with the project is evaluated.
#
# **Runtime:** in Colab *Runtime → Change runtime type → T4 GPU* makes no more than a minute's
# difference here. A TPU works as well, and so does the CPU.

# %% [markdown]
# ## Set-up
#
# Brings the helper package, unless it is installed or lies around this notebook, and in Colab
# installs what else is missing there. It changes no version that is there.

# %% cellView="form" tags=["set-up"]
# @title Set-up
import importlib.util, sys; sys.path.append(".."); importlib.util.find_spec("wbc_helpers") or get_ipython().run_line_magic("pip", "install -q --no-deps https://github.com/owner/white-blood-cells/archive/refs/heads/main.zip")  # fmt: skip  # noqa
from wbc_helpers import colab; colab.prepare()  # fmt: skip  # noqa

# %% [markdown]
# ## Imports
#
# The device is chosen first, because Keras asks for its backend when it is imported.

# %%
import pandas as pd

from wbc_helpers import errors, figures
from wbc_helpers.classify import judging
from wbc_helpers.data import identity
from wbc_helpers.runs import backend, recipes

print(backend.choose())

# %%
pd.Series(recipes.versions(), name="version").to_frame()

# %% [markdown]
# ## Parameters
#
# | parameter | meaning | default |
# |---|---|---|
# | `run` | name of the run, `latest` for the newest finished one, or `shipped` for the network that comes with the project, which also stands in where no run is finished | `latest` |
# | `runs_dir` | folder of all runs | `runs` |
# | `drive` | in Colab: look for the runs on your Google Drive, where `03_train` left them if `drive` was ticked there | `False` |
# | `source` | the data that the run was trained on: `auto`, `kaggle`, `sample`, or the path of an archive or folder | `auto` |
# | `data_dir` | folder for the data; a relative one is meant from the project's folder | `data` |
# | `wanted_error` | part of the answers that may be wrong, above 0 and below 1 | 0.05 |
# | `compare_with` | name of another evaluated run, to be compared on the same photographs; empty: none | empty |

# %% tags=["parameters"]
# @title Parameters
run: str = "latest"  # @param ["latest", "shipped"] {allow-input: true}
runs_dir: str = "runs"  # @param {type: "string"}
drive: bool = False  # @param {type: "boolean"}
source: str = "auto"  # @param ["auto", "kaggle", "sample"] {allow-input: true}
data_dir: str = "data"  # @param {type: "string"}
wanted_error: float = 0.05  # @param {type: "slider", min: 0.01, max: 0.5, step: 0.01}
compare_with: str = ""  # @param {type: "string"}

# %%
colab.check_parameters()
errors.check_fraction("wanted_error", wanted_error)
data_folder, runs_folder = colab.folders(data_dir, runs_dir, drive)
judging.check(run, compare_with, runs_folder)

# %% [markdown]
# ## Which network, and on which data?
#
# Each badge opens a new machine, on which no earlier run is found unless it was kept on Drive.

# %%
data = identity.bring(source, data_folder)
data

# %%
this_run = judging.open_run(run, data, runs_folder)
this_run

# %%
pd.Series(this_run.settings["training"], name=this_run.name).to_frame()

# %% [markdown]
# ## How it learned
#
# Accuracy and loss by epoch, on the images it learned from and on those it had set aside.

# %%
if this_run.was_trained:
    figures.learning_curves(
        this_run.history, validation_name=f"validation, {this_run.validation_title}"
    )
else:
    print("Not here: it came trained.")

# %% [markdown]
# ## Answers for the validation and the official test images
#
# `TEST` holds augmented images of other photographs than TRAIN; `TEST_SIMPLE` the test photographs
# themselves. Neither had a part in training. The validation images serve below to calibrate.

# %%
judged = judging.judge(this_run, data, data_folder)
print(
    f"{sum(map(len, judged.images.values())):,} images in {judged.seconds:.1f} s, decoding included"
)

# %% [markdown]
# ## Scores
#
# Balanced accuracy is the mean recall of the four types; macro-F1 the mean of their F1. Guessing
# would score 25 %.

# %%
judged.scores()

# %% [markdown]
# ## By cell type
#
# Precision: of the images given this type, how many are of it. Recall: of those of it, how many were
# given it. F1 is their harmonic mean.

# %%
judged.test.per_class.round(3)

# %%
figures.per_class_scores(judged.test);

# %% [markdown]
# ## Which types are taken for which?
#
# Rows are the true types: images, and below their share of the row, which on the diagonal is the
# recall.

# %%
figures.confusion(judged.test);

# %% [markdown]
# ## ROC and precision–recall curves
#
# Each type against the other three, over all thresholds.

# %%
figures.roc_curves(judged.test);

# %%
figures.precision_recall_curves(judged.test);

# %% [markdown]
# ## The most confident mistakes
#
# Wrong answers that the network was surest of. Images that look alike here are usually one
# photograph, augmented.

# %%
figures.mistakes(judged.mistakes(n=12));

# %% [markdown]
# ## Where does it look?
#
# Grad-CAM colours what speaks for the answer: a few right answers, then a few wrong ones. The
# outline is the white cell, located by its colour. The maps are coarse: trust the test below more.

# %%
figures.where_it_looks(*judged.looks());

# %%
judged.weight_on_cell().round(3)

# %% [markdown]
# ## Is that picture true?
#
# The white cell is painted over with the colour of the smear, then as much of the background, in
# the cell's shape where there is room. If the network reads the cell, the first destroys its answers
# and the second does not. It looks at each image once here, as it lies; scores above may be the mean
# of several looks.

# %%
figures.occlusion(judging.summarise_occluded(judged.occluded));

# %% [markdown]
# By type: of `images`, so many could be `tested`, for a cell must be found and there must be as much
# background as cell. A type that keeps its accuracy without its cell is the answer that the network
# gives when it sees nothing.

# %%
judged.occluded_by_type().round(3)

# %% [markdown]
# ## What do so few photographs allow one to say?
#
# Images of one photograph stand or fall together. The wider interval draws photographs instead of
# images; the narrow one, which most papers would give, takes each image for a cell of its own.
# Where photographs are not known, each image counts as one, and the two agree.

# %%
intervals = judged.intervals["TEST"]
figures.score_intervals(intervals, judged.test.n_images, judged.photographs().nunique());

# %%
intervals.round(3)

# %% [markdown]
# ## By photograph, and without cells that TRAIN shows too
#
# Each photograph is judged by the mean probability of its images. Some cells of TEST were
# photographed twice, and TRAIN holds the other picture: those without them are *unseen*.

# %%
judged.by_photograph()

# %% [markdown]
# ## Are the probabilities to be believed?
#
# Of the answers given with 80 %, are 80 % right? Temperature scaling divides the network's logits
# by one number, fitted on the validation images, and is kept in `calibration.json`. Where those are
# easier for the network than new cells, it stays too sure of itself.

# %%
with_and_without, calibrated = judged.calibrate()
figures.reliability_diagram(with_and_without);

# %%
calibrated.round(3)

# %% [markdown]
# ## Knowing when not to answer
#
# Leave the least sure images to a haematologist: the curve gives the error rate among those that
# are answered. The marks show a threshold chosen on validation images for `wanted_error`.

# %%
curves, chosen, abstained = judged.abstain(wanted_error)
figures.risk_coverage(curves, chosen);

# %%
abstained.round(3)

# %% [markdown]
# ## Sets instead of answers
#
# Split-conformal prediction answers with as many types as it takes to hold the true one at a
# promised rate. The promise holds for images like those of validation; where it is broken on TEST,
# validation was not like TEST.

# %%
figures.conformal_coverage(judged.coverage());

# %% [markdown]
# ## The paper's figure beside ours
#
# The paper reports an accuracy "over 90" per cent for its test set. The intervals drawn here take
# photographs for what is independent, as above: those of TEST were made from few, and the paper
# gives neither their number nor an interval.

# %%
figures.paper_beside_ours(
    {f"{this_run.name}: {split}": each for split, each in judged.tested.items()},
    intervals={f"{this_run.name}: {split}": each for split, each in judged.intervals.items()},
);

# %% [markdown]
# ## Written down
#
# Every image's answer, `predictions.csv`, and `evaluation.json`, in the run folder.

# %%
print(judged.write())

# %% [markdown]
# ## Beside another run
#
# `compare_with` names another run that was evaluated. Both answered the same images of TEST, and
# photographs are drawn again for both at once: those that are hard for both cancel, which two
# intervals side by side do not show. `first` is the other run, `second` this one, and a positive
# difference speaks for this one.

# %%
if compare_with:
    compared, words = judging.compare(compare_with, judged, runs_folder)
    display(compared.round(3))
else:
    print("No other run was named as compare_with")

# %% [markdown]
# An interval that holds zero means that so few photographs do not tell the two apart, and no more:
# not that they are equally good. It speaks of these two trained networks; another seed of either
# recipe may do better or worse.

# %%
if compare_with:
    print("\n".join(words))

# %% [markdown]
# **What was learned:** how the run does on cells that it was not trained on, and which types it
# mixes up. **Limits:** few photographs, in the published TEST 71, of which 4 show monocytes, from one
# laboratory; this is no diagnostic device. **Next:** train another recipe or seed with [03_train](03_train.ipynb), and
# compare the runs on the overview page.
