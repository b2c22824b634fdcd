"""The model under study: loading, families, what is watched and written at the hookpoint, losses."""
