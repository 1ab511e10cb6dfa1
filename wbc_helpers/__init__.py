"""Helpers behind the white-blood-cell notebooks.

Importing the package does nothing but define names: no download, no folder, no seed, and no
deep-learning framework. Only what trains, judges or explains networks imports Keras: `models`,
`pretrained`, `batches`, `training`, `crossvalidation`, `explain` and `occlusion`. Call
`runtime.choose` before these; `classifier.load` does so itself.
"""

__version__ = "0.1.0"
