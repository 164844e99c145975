"""An MFI export played back: its frames with the instrument's rows beside them, or its particle pictures.

``source.open_mfi(uri)`` and ``crops.open_mfi_crops(uri)`` are the sources; ``table`` reads the instrument's columns.
"""
