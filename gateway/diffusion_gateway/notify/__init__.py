"""Webhooks, and connections to addresses that clients name."""
