"""A registry's own HTTP API: manifests, small blobs, tags, and what is attached to an image. No docker command."""
