# ---
# jupyter:
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
# # 2 · Explore: what do the cells look like?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/owner/white-blood-cells/blob/main/notebooks/02_explore.ipynb)
#
# **At the end** you have seen cells of each type, the mean and the standard-deviation image that
# the paper (figure 5) feeds its network with, and what in these images is not blood at all.
#
# **Time and hardware:** a minute on two CPU cores.
#
# **Runtime:** a CPU is enough; a GPU would stand idle.

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
# All of them, the package's a room a line.

# %%
from wbc_helpers import cells, figures
from wbc_helpers.data import catalog, identity
from wbc_helpers.pixels import images, scale, stain, white_cells

# %% [markdown]
# ## Parameters
#
# | parameter | meaning | default |
# |---|---|---|
# | `source` | `auto` (data already here, else Kaggle, else drawn cells), `kaggle`, `sample`, or the path of a downloaded archive or an unpacked folder | `auto` |
# | `data_dir` | folder for the data; a relative one is meant from the project's folder | `data` |
# | `image_size` | height and width in pixels at which the images are looked at | `[48, 64]` |

# %% tags=["parameters"]
# @title Parameters
source: str = "auto"  # @param ["auto", "kaggle", "sample"] {allow-input: true}
data_dir: str = "data"  # @param {type: "string"}
image_size: list = [48, 64]  # @param {type: "raw"}

# %%
colab.check_parameters()
height, width = images.check_size(image_size)
data_folder, _ = colab.folders(data_dir)

# %% [markdown]
# ## The images
#
# `bring` finds the data or fetches them, so this notebook runs by itself.

# %%
data = identity.bring(source, data_folder)
data

# %%
all_images = catalog.find_images(data.folder)
training_images = all_images[all_images.split == "TRAIN"]

# %% [markdown]
# ## How many of each type?
#
# By split: TRAIN to learn from, TEST and TEST_SIMPLE to be judged by.

# %%
figures.class_balance(all_images);

# %% [markdown]
# ## What does each type look like?
#
# The nucleus tells the type: round and filling the cell in lymphocytes, kidney-shaped in
# monocytes, two-lobed among red granules in eosinophils, three to five lobes in neutrophils.

# %%
figures.montage_by_type(training_images, n_each=4, seed=0);

# %% [markdown]
# One white cell stands among many red ones, anywhere in the frame, and the frame itself is tilted:
# a network has to find the cell before it can name it.

# %% [markdown]
# ## Where is the white cell?
#
# Its nucleus is the one thing that is more blue than red and green. The red cells around it give
# the scale: their diameter in pixels is estimated from a few dozen images.

# %%
red_cell = scale.red_cell_diameter_of(training_images.path)
shuffled = training_images.sample(frac=1, random_state=1)
examples = shuffled.groupby("cell_type", observed=True).head(3).sort_values("cell_type")
pictures = [images.read_image(path) for path in examples.path]
located = [white_cells.locate(picture, red_cell) for picture in pictures]
print(f"A red cell is about {red_cell:.0f} pixels wide")
figures.located_cells(pictures, located);

# %% [markdown]
# Cut out at the scale of the red cells, and with the background made white, the cells of many
# slides are alike in everything but what tells their type. This is what the `compact` recipe sees.

# %%
crops = [white_cells.read_crop(path, (96, 96), red_cell) for path in examples.path]
figures.montage(crops, list(examples.cell_type), n_columns=4);

# %% [markdown]
# ## The mean and the standard-deviation image
#
# All images are decoded once into one array; the paper then subtracts the mean image from each
# image and divides by the standard-deviation image.

# %%
pixels = images.decode(training_images.path, (height, width), data_folder / "cache")
statistics = images.mean_and_std_image(pixels)
figures.mean_and_std(statistics, title="TRAIN, all types");

# %% [markdown]
# In the mean no single cell shows, only a bluish shade in the middle, where white cells sit more
# often than elsewhere. The standard deviation is highest along the border, where fill is black in
# one image and smear in the next: dividing by it plays the border down.

# %% [markdown]
# ## … and by cell type
#
# If a class could be told by its mean image alone, a network might learn the stain or the
# lighting of a few slides instead of the nucleus.

# %%
statistics_by_type = {
    name: images.mean_and_std_image(pixels[(training_images.cell_type == name).to_numpy()])
    for name in cells.NAMES
}
figures.mean_and_std_by_type(statistics_by_type);

# %% [markdown]
# ## Brightness and colour
#
# Averages of each image over all that is not black fill.

# %%
summary = images.summarise(training_images, pixels)
figures.brightness_and_colour(summary);

# %%
summary.groupby("cell_type", observed=True)[
    ["brightness", "red", "green", "blue", "fill"]
].mean().round(2)

# %% [markdown]
# The ranges overlap, yet each type has its own: in the real data, images of lymphocytes are the
# brightest. Such shifts are the mark of few slides, each with its stain and light, as much as of
# the cells, and a short-cut that a network may take.

# %% [markdown]
# ## Sizes
#
# What the files themselves say, before any resampling.

# %%
images.count_sizes(all_images.path)

# %% [markdown]
# ## What are the black corners?
#
# Rotating, shifting and shearing a photograph uncovers parts of the frame that it does not reach;
# the author filled them with black.

# %%
fill = stain.is_fill(pixels).mean(axis=0)
figures.black_corners(fill, n_images=len(pixels));

# %% [markdown]
# Nothing biological is black here: a network that reads the corners learns how an image was
# augmented.
#
# **What was learned:** the cells differ in their nuclei, the images also in stain, light and
# augmentation. **Limits:** this looks at images; how few photographs stand behind them, no
# histogram shows. **Next:** [03_train](03_train.ipynb) trains a network by the recipe that you choose:
# `paper` and `lenet` are shown the whole image, `compact` and `pretrained` the cell cut out of it.
