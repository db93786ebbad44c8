"""imgbuild: the image foundry for deep-learning teams."""

__version__ = "0.1.0"
