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
# **Time and hardware:** a minute on two CPU cores. Where no run exists yet, a short one is trained
# first (`epochs_if_untrained`).

# %% [markdown]
# ## Set-up
#
# Brings the helper package, unless it is installed or lies around this notebook, and in Colab
# installs what else is missing there. It changes no version that is there.

# %% cellView="form" tags=["set-up"]
# @title Set-up
import importlib.util, sys; sys.path.append(".."); importlib.util.find_spec("wbc_helpers") or get_ipython().run_line_magic("pip", "install -q --no-deps https://github.com/owner/white-blood-cells/archive/refs/heads/main.zip")  # fmt: skip  # noqa
from wbc_helpers import colab; root = colab.prepare()  # fmt: skip  # noqa

# %% [markdown]
# ## Imports
#
# The device is chosen first, because Keras asks for its backend when it is imported.

# %%
import time

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from wbc_helpers import cells, errors, figures
from wbc_helpers.classify import explain, inputs, networks, training
from wbc_helpers.data import catalog, sources, splits
from wbc_helpers.data.identity import identify
from wbc_helpers.evaluate import classification, confidence, uncertainty
from wbc_helpers.runs import backend, folders, recipes, recorder

runtime_in_use = backend.choose()
print(runtime_in_use)

# %%
pd.Series(recipes.versions(), name="version").to_frame()

# %% [markdown]
# ## Parameters
#
# | parameter | meaning | default |
# |---|---|---|
# | `run` | name of the run, or `latest` for the newest finished one | `latest` |
# | `runs_dir` | folder of all runs | `runs` |
# | `source` | the data that the run was trained on: `auto`, `kaggle`, `sample`, or the path of an archive or folder | `auto` |
# | `data_dir` | folder for the data; a relative one is meant from the project's folder | `data` |
# | `wanted_error` | part of the answers that may be wrong, above 0 and below 1 | 0.05 |
# | `compare_with` | name of another evaluated run, to be compared on the same photographs; empty: none | empty |
# | `epochs_if_untrained` | epochs of the short run that is trained where there is none | 2 |

# %% tags=["parameters"]
# @title Parameters
run: str = "latest"  # @param ["latest"] {allow-input: true}
runs_dir: str = "runs"  # @param {type: "string"}
source: str = "auto"  # @param ["auto", "kaggle", "sample"] {allow-input: true}
data_dir: str = "data"  # @param {type: "string"}
wanted_error: float = 0.05  # @param {type: "slider", min: 0.01, max: 0.5, step: 0.01}
compare_with: str = ""  # @param {type: "string"}
epochs_if_untrained: int = 2  # @param {type: "slider", min: 1, max: 20, step: 1}

# %%
colab.check_parameters()
short_settings = recipes.TrainingSettings(epochs=epochs_if_untrained)
data_folder = errors.check_folder("data_dir", data_dir, root)
runs_folder = errors.check_folder("runs_dir", runs_dir, root)
folders.check_name(run)
errors.check_fraction("wanted_error", wanted_error)
if compare_with:
    classification.read_predictions(folders.open_run(compare_with, runs_folder).folder)

# %% [markdown]
# ## Data
#
# Found or fetched, so this notebook runs by itself.

# %%
folder = sources.fetch(source, data_folder)
identity = identify(folder)
display(Markdown(sources.banner(identity.source, markdown=True)))
all_images = splits.add_provenance(catalog.find_images(folder))

# %% [markdown]
# ## The run
#
# On a fresh machine there is none, and a short one is trained.

# %%
if run == "latest" and not any(one.is_complete for one in folders.list_runs(runs_folder)):
    training.train_new(short_settings, identity, "first-try", data_folder, runs_folder)
this_run = folders.open_run(run, runs_folder)
folders.check_data(this_run, identity.to_dict())
model = networks.load(this_run)
pd.Series(this_run.settings["training"], name=this_run.name).to_frame()

# %% [markdown]
# ## How it learned

# %%
figures.learning_curves(
    this_run.history,
    validation_name="validation, " + folders.validation_title(this_run.settings["training"]),
);

# %% [markdown]
# ## Probabilities for the validation and the official test images
#
# `TEST` holds augmented images of other photographs than TRAIN; `TEST_SIMPLE` the test photographs
# themselves. Neither had a part in training. The validation images serve below to calibrate.

# %%
recipe, image_size = (this_run.settings["training"][key] for key in ("recipe", "image_size"))
red_cell = inputs.red_cell_of(all_images)
started = time.perf_counter()
rows = {split: all_images[all_images.split == split] for split in ("TEST", "TEST_SIMPLE")}
rows["validation"] = all_images[all_images.file.map(this_run.split) == "validation"]
rows = {split: each for split, each in rows.items() if len(each)}
answers = {}
for split, each in rows.items():
    pixels = inputs.decode(recipe, each.path, image_size, red_cell, data_folder / "cache")
    answers[split] = classification.evaluate(each.cell_type, networks.answer(recipe, model, pixels))
seconds = time.perf_counter() - started
validation, test = answers.pop("validation"), answers["TEST"]
print(f"{sum(map(len, rows.values())):,} images in {seconds:.1f} s, decoding included")

# %% [markdown]
# ## Scores
#
# Balanced accuracy is the mean recall of the four types; macro-F1 the mean of their F1. Guessing
# would score 25 %.

# %%
scores = {split: each.to_dict() for split, each in answers.items()}
pd.DataFrame(scores).loc[["n_images", "accuracy", "balanced_accuracy", "macro_f1"]]

# %% [markdown]
# ## By cell type

# %%
test.per_class.round(3)

# %%
figures.per_class_scores(test);

# %% [markdown]
# ## Which types are taken for which?
#
# Rows are the true types. On the left images are counted; on the right each row is divided by its
# sum, so that the diagonal is the recall.

# %%
figures.confusion_counts_and_rates(test);

# %% [markdown]
# ## ROC and precision–recall curves
#
# Each type against the other three, over all thresholds.

# %%
figures.roc_curves(test);

# %%
figures.precision_recall_curves(test);

# %% [markdown]
# ## The most confident mistakes
#
# Wrong answers that the network was surest of. Images that look alike here are usually one
# photograph, augmented.

# %%
figures.mistakes(classification.most_confident_mistakes(rows["TEST"], test.probabilities, n=12));

# %% [markdown]
# ## Where does it look?
#
# Grad-CAM colours what speaks for the answer: a few right answers, then a few wrong ones. The
# outline is the white cell, located by its colour. The maps are coarse: trust the test below more.

# %%
seen = (recipe, rows["TEST"].path, image_size, red_cell)
cell_masks = inputs.mask_cells(*seen, progress=False)
test_pixels = inputs.decode(*seen, data_folder / "cache")
told = test.probabilities.argmax(axis=1)
answered = pd.DataFrame({
    "cell_type": test.true_types,
    "predicted": np.array(cells.NAMES)[told],
    "probability": test.probabilities.max(axis=1),
})  # fmt: skip
right = (answered.predicted == answered.cell_type).to_numpy()
generator = np.random.default_rng(0)
some = np.concatenate(
    [generator.permutation(np.flatnonzero(group))[:4] for group in (right, ~right)]
)
heat = explain.grad_cam(model, test_pixels[some], told[some])
figures.where_it_looks(test_pixels[some], heat, answered.iloc[some], cell_masks[some]);

# %%
everywhere = explain.weight_on_cell(explain.grad_cam(model, test_pixels, told), cell_masks)
everywhere.groupby(np.where(right, "right", "wrong")).mean().round(3)

# %% [markdown]
# ## Is that picture true?
#
# The white cell is painted over with the colour of the smear, then a piece of background of the
# same shape. If the network reads the cell, the first destroys its answers and the second does not.
# It looks at each image once here, as it lies; scores above may be the mean of several looks.

# %%
occluded = explain.occlude(test_pixels, cell_masks)
occluded_answers = explain.answers_to(
    model, test_pixels, rows["TEST"].cell_type.to_numpy(), occluded
)
figures.occlusion(explain.summarise(occluded_answers));

# %% [markdown]
# By type: a type that keeps its accuracy without its cell is the answer that the network gives
# when it sees nothing.

# %%
occluded_answers["right"] = occluded_answers.predicted == occluded_answers.cell_type
occluded_answers.pivot_table("right", "cell_type", "condition", observed=True).round(3)

# %% [markdown]
# ## What do 71 photographs allow one to say?
#
# Images of one photograph stand or fall together. The wider interval draws photographs instead of
# images; the narrow one, which most papers would give, takes each image for a cell of its own.
# Where photographs are not known, each image counts as one, and the two agree.

# %%
photograph = rows["TEST"].source_id.fillna(rows["TEST"].file)
intervals = uncertainty.intervals(test, photograph)
figures.score_intervals(intervals, test.n_images, photograph.nunique());

# %%
intervals.round(3)

# %% [markdown]
# ## By photograph, and without cells that TRAIN shows too
#
# Each photograph is judged by the mean probability of its images. Some cells of TEST were
# photographed twice, and TRAIN holds the other picture: those without them are *unseen*.

# %%
views = classification.views(test, photograph, rows["TEST"].cell_in_train.fillna(False))
shown = ["n_images", "accuracy", "balanced_accuracy", "macro_f1", "kappa"]
pd.DataFrame({name: classification.summary(each) for name, each in views.items()}).loc[shown]

# %% [markdown]
# ## Are the probabilities to be believed?
#
# Of the answers given with 80 %, are 80 % right? Temperature scaling divides the network's logits
# by one number, fitted on the validation images. After a random split these are cells that the
# network knows, so that it will still be too sure of itself on others.

# %%
validation_title = folders.validation_title(this_run.settings["training"])
fitted = confidence.fit_temperature(validation, validation_title)
scaled = confidence.with_temperature(test, fitted.temperature)
figures.reliability_diagram(
    {"TEST as it is": test, f"TEST at temperature {fitted.temperature:.2f}": scaled}
);

# %%
calibrated = {"before": confidence.summary(test), "after": confidence.summary(scaled)}
confidence.write_calibration(this_run.folder, fitted, test=calibrated)
pd.DataFrame(calibrated).round(3)

# %% [markdown]
# ## Knowing when not to answer
#
# Leave the least sure images to a haematologist: the curve gives the error rate among those that
# are answered. The marks show a threshold chosen on validation images for `wanted_error`.

# %%
chosen = confidence.choose_threshold(validation, wanted_error)
figures.risk_coverage(
    {
        f"validation, {validation_title}": confidence.risk_coverage(validation),
        "TEST": confidence.risk_coverage(test),
    },
    chosen,
);

# %%
confidence.answer(test, chosen.threshold).round(3)

# %% [markdown]
# ## Sets instead of answers
#
# Split-conformal prediction answers with as many types as it takes to hold the true one at a
# promised rate. The promise holds for images like those of validation; where it is broken on TEST,
# validation was not like TEST.

# %%
validation_photograph = rows["validation"].source_id.fillna(rows["validation"].file)
coverage = confidence.coverage_by_rate(
    validation, test, validation_photographs=validation_photograph, photographs=photograph
)
figures.conformal_coverage(coverage);

# %% [markdown]
# ## The paper's figure beside ours
#
# The paper reports an accuracy "over 90" per cent for its test set. The interval drawn here takes
# images as independent, which those of TEST are not: they were made from 71 photographs. An honest
# interval is nearer to that of TEST_SIMPLE, which has as many images as there are photographs.

# %%
named = {f"{this_run.name}: {split}": each for split, each in answers.items()}
figures.paper_beside_ours(named);

# %% [markdown]
# ## Written down
#
# `evaluation.json` and every image's answer, `predictions.csv`, in the run folder.

# %%
summary = folders.summarise(this_run, answers, networks.count_trainable(model), seconds)
by_score = intervals[["low", "high"]].T.to_dict("list")
summary["test"]["interval_by_photograph"] = by_score["accuracy"]
summary["test"]["intervals_by_photograph"] = by_score
if rows["TEST"].source_id.notna().all():
    summary["test"]["photographs"] = classification.summary(views["photographs"])
summary["peak_memory_bytes"] = max(summary["peak_memory_bytes"], recorder.peak_memory_bytes())
everything = {"validation": validation, **answers}
classification.write_predictions(
    this_run.folder,
    pd.concat(classification.tabulate(rows[s], everything[s].probabilities) for s in everything),
)
# Last, because a run with this file counts as evaluated.
folders.write_evaluation(this_run, summary);

# %% [markdown]
# ## Beside another run
#
# `compare_with` names another run that was evaluated. Both answered the same images of TEST, and
# photographs are drawn again for both at once: those that are hard for both cancel, which two
# intervals side by side do not show. A positive difference speaks for this run.

# %%
if compare_with:
    other_run = folders.open_run(compare_with, runs_folder)
    tables = [classification.read_predictions(each.folder) for each in (other_run, this_run)]
    compared_images, other, ours = classification.align(
        *(table[table.split == "TEST"] for table in tables)
    )
    compared = uncertainty.compare(
        other, ours, compared_images.source_id.fillna(compared_images.file)
    )
    display(compared.drop(columns=["naive_low", "naive_high"]).round(3))
else:
    print("No other run was named as compare_with")

# %% [markdown]
# `first` is the other run, `second` this one. An interval that holds zero means that so few
# photographs do not tell the two apart, and no more: not that they are equally good. It speaks of
# these two trained networks; another seed of either recipe may do better or worse.

# %%
if compare_with:
    for score in ("accuracy", "balanced_accuracy", "macro_f1"):
        print(uncertainty.in_words(compared, score, other_run.name, this_run.name))

# %% [markdown]
# **What was learned:** how the run does on cells that it was not trained on, and which types it
# mixes up. **Limits:** 71 photographs, of which 4 show monocytes, from one laboratory; this is
# no diagnostic device. **Next:** train another recipe or seed with [03_train](03_train.ipynb), and
# compare the runs on the overview page.
