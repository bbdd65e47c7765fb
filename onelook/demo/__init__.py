"""The demo page (Gradio): a picture in, the cut-out, progress, the model in a viewer, downloads.

`page` lays it out, `events` is what happens on it, `makers` is who does the work: an engine in this
process or a running REST service. Needs the extra "demo".
"""
