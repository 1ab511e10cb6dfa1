"""What training leaves behind and evaluation takes up: recipes, run folders, shipped weights.

In come settings that a person gave and a network with batches to learn from; out go run folders
that an interrupted training goes on with, and the one way to Keras, its backend chosen. It may
import `data`, `pixels` and `evaluate`.
"""
