"""What a run will take and give, before it is started: steps, bytes, seconds, dollars."""
