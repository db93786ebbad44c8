"""Docker and BuildKit through the Docker SDK: the only place that imports docker.

Small and typed. It knows nothing of cells, recipes or checks, and imports nothing else of imgbuild.
"""
