"""What a run has to show: compressors beside it, tables, plots and one self-contained page."""
