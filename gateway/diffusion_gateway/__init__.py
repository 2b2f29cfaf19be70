"""The job gateway: submit, watch, cancel, keep. Imports core and costs, never torch."""
