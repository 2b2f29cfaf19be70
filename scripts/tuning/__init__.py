"""Measures what serving takes, and checks what a simulation of it foresaw."""
