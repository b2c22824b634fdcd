"""The stages, one file each: `run(config, run)` reads artefacts of the run folder and writes its own."""
