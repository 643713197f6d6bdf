"""Where we run, not what we do: device, ranks, attention backend, kernels, run log."""
