"""What the clouds charged: billing exports in the FOCUS format, as charges of a day.

Needs the `costs` extra; nothing outside the commands and reports imports it.
"""
