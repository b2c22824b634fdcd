"""Where what an arm costs goes: the later parts of the subject that a rewrite breaks, and how they are joined."""
