"""Dashboards as code: what they show, and the files that Grafana reads."""
