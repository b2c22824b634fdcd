"""Forms in which a finished run is given to other tools, a file each (`rewrite.commands.export`)."""
