"""Floor 1. DN to model input and back: one file per kind of input, each with its own name and version.

Training and serving import the same functions; a model's card names the contract that it was trained with.
"""
