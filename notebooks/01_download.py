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
# # 1 · Download: do I have the data, all of it, and under what licence?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/owner/white-blood-cells/blob/main/notebooks/01_download.ipynb)
#
# **At the end** you have the images of stained blood smears on disk, counted and compared, file
# by file, with what the data set's author published.
#
# **Time and hardware:** about a minute on any machine, most of it download (116 MB).
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
from IPython.display import Markdown

from wbc_helpers import figures
from wbc_helpers.data import catalog, identity

# %% [markdown]
# ## Parameters
#
# | parameter | meaning | default |
# |---|---|---|
# | `source` | `auto` (data already here, else Kaggle, else drawn cells), `kaggle`, `sample`, or the path of a downloaded archive or an unpacked folder | `auto` |
# | `data_dir` | folder for the data; a relative one is meant from the project's folder | `data` |

# %% tags=["parameters"]
# @title Parameters
source: str = "auto"  # @param ["auto", "kaggle", "sample"] {allow-input: true}
data_dir: str = "data"  # @param {type: "string"}

# %%
colab.check_parameters()
data_folder, _ = colab.folders(data_dir)

# %% [markdown]
# ## Fetch
#
# Downloads and unpacks, or finds what an earlier call brought: calling it twice does no harm.

# %%
data = identity.bring(source, data_folder)
data

# %% [markdown]
# ## Is it complete, and is it the published data?
#
# Every file was hashed, and the list compared with the one that ships with this project.

# %%
print(f"Digest {data.digest[:16]}…")
print("\n".join(data.deviations) or "No deviation: every file is what was published.")

# %% [markdown]
# ## Whose data are these?
#
# Name them wherever you show these images or what was learned from them.

# %%
Markdown(
    f"- **Where:** {data.source.address}\n"
    f"- **Licence:** {data.source.licence}\n"
    f"- **Please cite:** {data.source.citation}"
)

# %% [markdown]
# ## How many images of each type?
#
# `TRAIN` and `TEST` hold augmented images: rotated, shifted, sheared and flipped versions of
# photographs. `TEST_SIMPLE` holds the test photographs themselves.

# %%
images = catalog.find_images(data.folder)
catalog.count_images(images)

# %%
figures.class_balance(images);

# %% [markdown]
# The classes look balanced because the author filled them up by augmentation. The real archive's
# 9,957 TRAIN images were made from only 277 photographs, and its 2,487 TEST images from 71: of
# monocytes, the rarest, TEST shows four cells in 620 images. Scores from these images speak of
# few cells, however many decimals they have.
#
# **Next:** [02_explore](02_explore.ipynb) looks at the cells.
