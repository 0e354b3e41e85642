"""A module becomes a file to deploy: ONNX, its int8 form, and the proof that they answer alike.

`onnx` writes the float file, `quantize` makes the int8 file from it, `parity` reads a file back
and compares its answers with the module's. What reads such a file afterwards is `deployed`.
"""
