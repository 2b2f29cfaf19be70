"""The dashboards on paper: what Prometheus answers, drawn and put on one page."""
