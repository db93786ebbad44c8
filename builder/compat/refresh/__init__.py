"""Refreshes what a package index can tell of the projects in the fact tables: `python -m builder.compat.refresh`.

It prints a unified difference for every table and writes only with `--write`. A table that would lose a row, a release,
a Python, a build or a requirement is an error (exit code 13) unless `--allow-removals` is given: an index that is
incomplete for a moment must not make facts vanish. A published wheel never changes, so METADATA is read only for
releases that the tables do not have yet; `--recheck` reads it for all.
"""
