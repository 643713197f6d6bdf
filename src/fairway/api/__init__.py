"""What `import fairway` offers: a model in use, and the stages of a run as functions."""
