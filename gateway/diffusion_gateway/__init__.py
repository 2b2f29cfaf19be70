"""The job gateway: submit, watch, cancel, keep. Imports core, never torch."""
