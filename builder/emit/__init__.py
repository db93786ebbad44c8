"""The plan as jobs of a CI system: GitHub, GitLab, Buildkite; and as a bake file. docs/ci.md is its contract."""
