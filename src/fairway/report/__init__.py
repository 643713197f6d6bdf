"""What a run has to show: baselines, tables, plots and one self-contained page."""
