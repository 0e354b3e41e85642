"""What a run found, as plain data and as one self-contained page that people look at.

`record` holds the data of `run.json`; `page` turns it into HTML. Everything between them is drawn
here: `svg` has scales and marks, `charts` and `outcomes` the figures, `tables` the numbers side by
side, `gallery` chooses rows and writes their images, `cards` draws them, `style` is the sheet.
NumPy only: no torch, no plotting library, no script in the page and nothing fetched by it.
"""
