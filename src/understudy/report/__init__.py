"""What a run found, as plain data and as one self-contained page that people look at.

`record` holds the data of `run.json`, `page` turns it into HTML, top to bottom: `headline`,
`delivery`, `sections`, the gallery's `cards`, `ledger`. Figures are drawn in `effect`, `charts`,
`slices`, `confusion` and `calibration` from the marks of `svg` and `axes`; `tables` and `wording`
write the numbers, `style` is the sheet, `gallery` chooses rows and writes their images.
NumPy only: no torch, no plotting library, no script in the page, and nothing fetched by it.
"""
