"""fixpix: find and repair bad pixels in raw sensor images, and change nothing else."""

__version__ = "0.1.0"
