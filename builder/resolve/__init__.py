"""Turns what templates ask for into lock files: Python packages through uv, the distribution's through apt."""
