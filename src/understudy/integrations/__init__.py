"""Our objective inside loops that are not ours."""
