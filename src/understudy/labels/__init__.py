"""Teacher knowledge on disk: written once, read by example id and view."""
