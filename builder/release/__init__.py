"""From an image that passed to names in a registry: the evidence beside its digest, and what it may be called."""
