"""The Helm chart: rendered by the real helm, checked against the schemas of what reads it."""
