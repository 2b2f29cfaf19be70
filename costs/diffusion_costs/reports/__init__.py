"""A review of costs on paper: in the terminal, as CSV, and as a page.

Needs the `costs` extra; nothing outside the commands imports it.
"""
