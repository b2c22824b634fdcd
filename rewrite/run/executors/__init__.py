"""Where the jobs of a sweep and of a run are done, a file each: `base.py` says what an executor is."""
