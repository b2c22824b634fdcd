"""The run folder and what runs it: files, freshness, the runner, backends by name, configs. Knows no stage."""
