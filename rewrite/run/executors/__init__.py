"""Where the jobs of a sweep are done, a file each: `base.py` says what an executor is."""
