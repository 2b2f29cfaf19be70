"""Previews: what a picture is heading for, shown while it is drawn.

`forecast.py` finds the clean latents that the model foresees, `colours.py` turns latents into
colours, `fitting.py` fits the colours to the pipeline's own VAE, on the pictures of `scenes.py`.
"""
