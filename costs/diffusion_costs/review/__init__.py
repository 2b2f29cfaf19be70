"""What a bill and the meters mean together: figures, forecasts, anomalies, alerts.

Needs the `costs` extra; nothing outside the commands and reports imports it.
"""
