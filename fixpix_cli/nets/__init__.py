"""Floor 2. Neural nets: cards, the shipped models, sessions, correctors; the keeper of onnxruntime.

Importing this package costs nothing: onnxruntime is loaded when the first session opens.
"""
