"""How values that others wrote are shown: text made safe, tables at a terminal, CSV; and how far a stage has come."""
